import FlightStats
import FoundationEssentials
import Grape

/// The flight that an event carries. One that cannot be read will not become readable: it is rejected, not tried again.
func flight(in event: Event) throws -> Flight {
  do {
    return try JSONDecoder().decode(Flight.self, from: Data(event.value.array))
  } catch {
    throw Reject(code: 1, message: "not an enriched flight: \(error)")
  }
}

/// What a `ranking` event asks; an empty one asks for all carriers in order of the median.
func question(in event: Event) throws -> Question {
  guard event.value.count > 0 else { return Question() }
  do {
    return try JSONDecoder().decode(Question.self, from: Data(event.value.array))
  } catch {
    throw Reject(
      code: 2,
      message: """
        expected {"by": "median" or "mean", "of": "carrier" or "route", "top": number, "format": "table" or "json"}, \
        each member optional; got \(event.text.prefix(200))
        """)
  }
}

/// `value` as JSON, members in alphabetical order.
func json(_ value: some Encodable) throws -> [UInt8] {
  let encoder = JSONEncoder()
  encoder.outputFormatting = [.sortedKeys]
  return [UInt8](try encoder.encode(value))
}
