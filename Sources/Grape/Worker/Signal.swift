internal import GrapeCore
internal import GrapeWire

/// A handle of a name that handlers emit, made by `Application.signal`.
public final class Signal: Sendable {
  /// The name, as in the manifest's list of emitted events.
  public let name: String
  /// Position among the application's handles.
  let index: Int

  init(name: String, index: Int) {
    self.name = name
    self.index = index
  }
}

/// Where one name that may be emitted goes, in one worker.
final class ResolvedSignal {
  let name: String
  let destinations: [Destination]

  init(name: String, destinations: [Destination]) {
    self.name = name
    self.destinations = destinations
  }
}

/// One slot, or one topic that is not Grape's, that a signal is connected to. Caches the encoded headers of what is sent to it.
final class Destination {
  /// What choosing an output takes, without reference counts.
  struct Target {
    let partitions: Int32
    /// Among all destinations of the worker.
    let index: Int
    /// Position of this destination's partition 0 among the worker's outputs.
    let firstOutput: Int
    unowned(unsafe) let owner: Destination
  }

  let topic: String
  let event: [UInt8]
  private let partitions: Int32
  /// The topic is not Grape's: records there have no headers but the event's own, and lead no caller on.
  let isExternal: Bool
  private let index: Int
  private let firstOutput: Int
  /// Partition that unkeyed events of the next delivery go to.
  private var nextPartition: Int32 = 0
  /// By hops of the event being handled, for events that hand on nothing else.
  private var plain: [ByteSlice?] = []

  init(topic: String, event: String, partitions: Int32, isExternal: Bool, index: Int, firstOutput: Int) {
    self.topic = topic
    self.event = Array(event.utf8)
    self.partitions = partitions
    self.isExternal = isExternal
    self.index = index
    self.firstOutput = firstOutput
  }

  var target: Target { Target(partitions: partitions, index: index, firstOutput: firstOutput, owner: self) }

  /// Round robin over the partitions.
  func takePartition() -> Int32 {
    defer { nextPartition = (nextPartition + 1) % partitions }
    return nextPartition
  }

  /// The encoded headers of an event that is emitted here while one with `origin` is handled.
  @inline(__always)
  func plainSection(hops: UInt8) -> ByteSlice {
    if Int(hops) < plain.count, let section = plain[Int(hops)] { return section }
    return makePlainSection(hops: hops)
  }

  @inline(never)
  private func makePlainSection(hops: UInt8) -> ByteSlice {
    while plain.count <= Int(hops) { plain.append(nil) }
    let section = makeSection(hops: hops, deadline: nil, reply: nil, traceparent: nil, headers: [])
    plain[Int(hops)] = section
    return section
  }

  /// `hops`: of the event being handled.
  func makeSection(
    hops: UInt8, deadline: Int64?, reply: [UInt8]?, traceparent: [UInt8]?, headers: [Event.Header]
  ) -> ByteSlice {
    var section = HeaderSection()
    if !isExternal {
      section.append(HeaderName.event, event)
      section.append(HeaderName.hops, [hops + 1])
      if let deadline { section.append(deadline: deadline) }
      if let reply { section.append(HeaderName.replyAddress, reply) }
    }
    if let traceparent { section.append(HeaderName.traceparent, traceparent) }
    for header in headers {
      header.name.withEventBytes { name in
        if let name { section.append(name, header.value?.unsafeBytes) }
      }
    }
    return section.finish()
  }
}
