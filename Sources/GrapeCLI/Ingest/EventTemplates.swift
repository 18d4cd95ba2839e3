import Grape
import GrapeCore
import GrapeWire

/// The encoded headers of each event name that an ingest sends.
final class EventTemplates {
  /// That of the target on the command line.
  let target: EventTemplate
  private let app: String
  private let slots: [String]
  private let byName: [[UInt8]: EventTemplate]
  private var lastName: [UInt8]
  private var last: EventTemplate

  /// Throws `noSuchSlot` if the target is none of the application's slots.
  init(target: EventTarget, slots: [String], headers: [OutgoingEvent.Header]) throws {
    guard slots.contains(target.event) else {
      throw StatusError(
        .noSuchSlot, "\(target.app) has no slot `\(target.event)`; its slots are \(slots.joined(separator: ", "))")
    }
    app = target.app
    self.slots = slots
    let all = slots.map { (Array($0.utf8), EventTemplate(event: $0, headers: headers)) }
    byName = Dictionary(all) { first, _ in first }
    lastName = Array(target.event.utf8)
    last = EventTemplate(event: target.event, headers: headers)
    self.target = last
  }

  /// The template of the slot with that name; nil if there is none.
  func named(_ name: UnsafeRawBufferPointer) -> EventTemplate? {
    // Rows of a kind tend to follow each other.
    if name.count == lastName.count, name.elementsEqual(lastName) { return last }
    guard let template = byName[Array(name)] else { return nil }
    lastName = Array(name)
    last = template
    return template
  }

  /// Why `named` found nothing.
  func problem(_ name: UnsafeRawBufferPointer) -> String {
    "\(app) has no slot `\(Format.inline(name, limit: 128))`; its slots are \(slots.joined(separator: ", "))"
  }
}
