internal import CGrapeLinux
internal import GrapeCore
internal import GrapeEngine
internal import GrapeLog
internal import GrapeReactor
internal import GrapeWire
internal import Logging

// Requests on a log that other nodes share, which take some with the same names: each is claimed before it is begun.
extension RequestTable {
  struct ClaimPolicy {
    /// This node's name.
    var node: String
    /// Tells this process apart from others that have this name, earlier.
    var life: UInt64
    /// How long a claim may keep others from the name, milliseconds.
    var time: Int64

    /// Of this process's claims.
    var header: [UInt8] { Array("\(node)/\(String(life, radix: 36))".utf8) }

    /// Whether a claim with such a header is of an earlier process.
    func isInherited(_ header: UnsafeRawBufferPointer) -> Bool {
      header.starts(with: "\(node)/".utf8) && !header.elementsEqual(self.header)
    }
  }

  /// What a claim has come to.
  enum Decision {
    /// It is the first: its event is to be appended, with this. `placed` must follow.
    case append(CorrelationID, Intake.Companion)
    /// Another one was first; `first` finds it.
    case isRepeat
    case failed(StatusError)
  }

  /// Whether requests must be claimed instead of begun: others may take them, too.
  var needsClaims: Bool { policy != nil }

  /// Finds out whether a request is the first of its name wherever requests are taken; `decide` is called once.
  func claim(
    _ name: ByteSlice, call: CorrelationID?, fingerprint: UInt64, partition: Int32,
    decide: @escaping (Decision) -> Void
  ) {
    let forfeited = index.find(name, now: grape_realtime_ms(), window: window)?.marker.id
    let marker = remember(name, call, fingerprint, partition, claim: .sent)
    if let forfeited { hand(forfeited, to: marker.id) }
    claims[marker.id] = (clock, decide)
    sent.add(marker.id, due: clock + Self.appendTime)
    append(name, marker.with(.claim), durability: .disk, time: grape_realtime_ms()) { [self] result in
      // The topic's order decides, so nothing is known before it was read there.
      if case .failure(let error) = result { giveUp(marker.id, error.message) }
    }
  }

  /// A claim came to nothing; whether it stands in the topic or not, its event will not be appended.
  func giveUp(_ id: CorrelationID, _ why: String) {
    guard let claim = claims.removeValue(forKey: id) else { return }
    let error = StatusError(.unavailable, "the request was not taken: \(why)", ran: .never)
    release(id)
    fail(id, error)
    claim.decide(.failed(error))
  }

  /// Tells the other nodes that a claim's event will not come, so that they need not wait until its time is over.
  func release(_ id: CorrelationID) {
    guard let name = index.name(id), let entry = index.entry(id), entry.claim != nil else { return }
    append(name, entry.marker.with(.release), durability: .disk, time: entry.time) { [logger, place] result in
      guard case .failure(let error) = result, error.code != .closed else { return }
      logger.warning(
        "an idempotency key stays taken for a while", metadata: ["topic": "\(place)", "error": "\(error)"])
    }
  }

  /// Those who wait for a request wait for the one that has taken its place.
  func hand(_ id: CorrelationID, to other: CorrelationID) {
    if let calls = waiting.removeValue(forKey: id) { waiting[other, default: []] += calls }
    if let waiters = whenPlaced.removeValue(forKey: id) { whenPlaced[other, default: []] += waiters }
    claims.removeValue(forKey: id)?.decide(.isRepeat)
  }

  func takeClaim(_ name: ByteSlice, _ marker: RequestMarker, _ placed: PlacedRecord) {
    let until = clock + (policy?.time ?? 0)
    let entry = RequestIndex.Entry(marker.with(.placed), time: placed.timestamp, claim: .held(until: until))
    switch index.readClaim(name, entry, clock: clock, now: grape_realtime_ms(), window: window) {
    case .won:
      guard let claim = claims[marker.id] else { return release(marker.id) }
      if clock - claim.since >= Self.appendTime { return giveUp(marker.id, "the log took too long to take its claim") }
      claims[marker.id] = nil
      claim.decide(.append(marker.id, companion(name, index.entry(marker.id)?.marker ?? marker.with(.placed))))
    case .superseded(let other):
      hand(other, to: marker.id)
      hold(marker.id, until)
    case .noted: hold(marker.id, until)
    }
  }

  func hold(_ id: CorrelationID, _ until: Int64) {
    if index.entry(id)?.claim != nil { held.add(id, due: until) }
  }

  /// A claim's time is over, unless others have put it off.
  func void(_ id: CorrelationID) {
    guard let entry = index.entry(id), case .held(let until) = entry.claim else { return }
    if until > clock { return held.add(id, due: until) }
    fail(
      id,
      StatusError(
        .unavailable, "the node that took the first request did not get it into the log; it may be sent again",
        ran: .never))
  }
}
