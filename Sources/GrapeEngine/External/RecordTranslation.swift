internal import GrapeCore
internal import GrapeWire

/// Makes an event of a record that no SDK of Grape's wrote: any key, any value, any headers.
///
/// Headers stay as they are and in their order, but for those that begin with `g.`, which are Grape's; `grape-source`
/// says where the record stands. A CloudEvent in structured mode is taken apart, so that handlers meet both modes
/// in one form. Not `Sendable`: one thread makes one for each piece of work.
struct RecordTranslation: ~Copyable {
  /// What becomes of a record. Valid until the next one is translated, and while the record is.
  struct Event {
    var key: UnsafeRawBufferPointer?
    var value: UnsafeRawBufferPointer?
    var headerSection: UnsafeRawBufferPointer
  }

  private let rules: SourceRules
  private let placeText: [UInt8]
  private var section = ByteWriter(capacity: 512)
  private var origin: [UInt8] = []
  /// Keeps what an event's value lies in.
  private var envelope: CloudEventEnvelope?
  /// A key that lies in the envelope.
  private var key: ByteSlice?

  init(_ rules: SourceRules) {
    self.rules = rules
    placeText = rules.origin
  }

  /// Throws if the record cannot be an event: its headers are no headers, it says that it is a CloudEvent and is none, or
  /// the event would be larger than events may be.
  mutating func translate(_ record: Record, at offset: Int64) throws(UnusableRecord) -> Event {
    var findings = try HeaderFindings(record, keyHeader: rules.keyHeader)
    var value = record.value
    envelope = nil
    key = nil
    if findings.isStructured, let value {
      envelope = try CloudEventEnvelope(value)
    }
    if let envelope {
      value = envelope.data.bytes
      findings.take(envelope)
      key = rules.keyHeader.flatMap { name in
        envelope.headers.first { $0.name.utf8.elementsEqual(name) }.map { ByteSlice($0.value) }
      }
    }
    write(record, findings, offset)
    let event = Event(
      key: key?.unsafeBytes ?? findings.key ?? record.key, value: value, headerSection: section.unsafeBytes)
    let size = (event.key?.count ?? 0) + (value?.count ?? 0) + event.headerSection.count
    guard size <= rules.eventLimit else {
      throw UnusableRecord(
        message: "as an event it has \(size) bytes (key, value and headers); \(rules.eventLimit) are allowed")
    }
    return event
  }

  private mutating func write(_ record: Record, _ findings: HeaderFindings, _ offset: Int64) {
    // Those that are kept, `g.e`, `grape-source`, and perhaps the trace.
    let made = envelope?.headers.count ?? 0
    let trace = findings.hasTrace ? nil : findings.cloudTrace
    section.truncate(to: 0)
    section.varint(Int64(2 + findings.kept + made + (trace == nil ? 0 : 1)))
    append(HeaderName.event, rules.slot)
    origin.removeAll(keepingCapacity: true)
    origin.append(contentsOf: placeText)
    origin.append(contentsOf: String(offset).utf8)
    append(HeaderName.source, origin)
    if let trace { append(HeaderName.traceparent, trace) }
    if let envelope {
      for header in envelope.headers {
        ByteSlice(header.name).withUnsafeBytes { name in
          header.value.withUnsafeBytes { append(name, $0) }
        }
      }
    }
    var headers = record.headers
    // They were read once, whole, when the findings were made.
    while let (name, value) = try? headers.next() {
      if findings.keeps(name) { append(name, value) }
    }
  }

  private mutating func append(_ name: StaticString, _ value: [UInt8]) {
    value.withUnsafeBytes { append(UnsafeRawBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount), $0) }
  }

  private mutating func append(_ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer?) {
    section.varint(Int64(name.count))
    section.bytes(name)
    section.varint(value.map { Int64($0.count) } ?? -1)
    if let value { section.bytes(value) }
  }
}

/// What there is to know of a record's headers before they are written anew.
private struct HeaderFindings {
  /// How many of them an event keeps.
  private(set) var kept = 0
  /// The value is a CloudEvent with its attributes around it.
  private(set) var isStructured = false
  private(set) var hasTrace = false
  /// `traceparent` as CloudEvents carry it.
  private(set) var cloudTrace: [UInt8]?
  /// What the manifest says is the key, if the record has it.
  private(set) var key: UnsafeRawBufferPointer?

  init(_ record: Record, keyHeader: [UInt8]?) throws(UnusableRecord) {
    do throws(WireError) {
      var headers = record.headers
      while let (name, value) = try headers.next() {
        guard isUTF8(name) else { throw WireError(.malformed, "a header's name is not UTF-8") }
        if !Self.isOurs(name) { kept += 1 }
        if name.elementsEqual("traceparent".utf8) {
          hasTrace = true
        } else if name.elementsEqual("ce_traceparent".utf8) {
          cloudTrace = value.map { [UInt8]($0) }
        } else if Self.isContentType(name), let value {
          isStructured = Self.isEnvelope(value)
        }
        if let keyHeader, name.elementsEqual(keyHeader) { key = value }
      }
      guard isStructured, record.value != nil else {
        isStructured = false
        return
      }
      // The envelope's attributes take the place of these.
      kept = 0
      headers = record.headers
      while let (name, _) = try headers.next() {
        if keeps(name) { kept += 1 }
      }
    } catch {
      throw UnusableRecord(message: "its headers cannot be read: \(error.message)")
    }
  }

  /// The envelope's attributes count, not the record's headers.
  mutating func take(_ envelope: CloudEventEnvelope) {
    cloudTrace = envelope.headers.first { $0.name == "ce_traceparent" }?.value
  }

  /// Whether a header of the record is one of the event.
  func keeps(_ name: UnsafeRawBufferPointer) -> Bool {
    if Self.isOurs(name) { return false }
    return !isStructured || !(Self.isContentType(name) || name.starts(with: "ce_".utf8))
  }

  private static func isOurs(_ name: UnsafeRawBufferPointer) -> Bool {
    HeaderName.isReserved(name) || name.elementsEqual("grape-source".utf8)
  }

  private static func isContentType(_ name: UnsafeRawBufferPointer) -> Bool {
    begins(name, with: "content-type", whole: true)
  }

  /// `application/cloudevents+json`, with parameters behind or without.
  private static func isEnvelope(_ value: UnsafeRawBufferPointer) -> Bool {
    let type: StaticString = "application/cloudevents+json"
    guard begins(value, with: type, whole: false) else { return false }
    let rest = value.dropFirst(type.utf8CodeUnitCount)
    return rest.isEmpty || rest.first == UInt8(ascii: ";") || rest.first == UInt8(ascii: " ")
  }

  /// Compares ASCII letters without regard to case. `lower` is in lower case.
  private static func begins(_ bytes: UnsafeRawBufferPointer, with lower: StaticString, whole: Bool) -> Bool {
    let count = lower.utf8CodeUnitCount
    guard whole ? bytes.count == count : bytes.count >= count else { return false }
    for index in 0..<count {
      let byte = bytes[index]
      let folded = (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(byte) ? byte + 32 : byte
      if folded != lower.utf8Start[index] { return false }
    }
    return true
  }
}

/// Names are nearly always ASCII.
private func isUTF8(_ bytes: UnsafeRawBufferPointer) -> Bool {
  bytes.allSatisfy { $0 < 0x80 } || String(validating: bytes, as: UTF8.self) != nil
}
