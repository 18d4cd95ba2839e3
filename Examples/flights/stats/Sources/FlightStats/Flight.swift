/// An enriched flight as the application `flights` emits it.
public struct Flight: Codable, Sendable {
  public var carrier: String
  public var airline: String
  public var origin: String
  public var dest: String
  /// Minutes after the scheduled arrival, negative if early; nil if the flight did not arrive or nobody knows when.
  public var delay: Int?
  /// How late that is, in a word or two: `early`, `on time`, `late`, `very late`, `missing`.
  public var `class`: String

  public init(carrier: String, airline: String, origin: String, dest: String, delay: Int?, class: String) {
    self.carrier = carrier
    self.airline = airline
    self.origin = origin
    self.dest = dest
    self.delay = delay
    self.class = `class`
  }

  /// `EWR-IAH`
  public var route: String { "\(origin)-\(dest)" }
}
