/// All figures of the application, put together from what its partitions counted.
public struct Board: Sendable {
  public var carriers: [String: DelayCounts] = [:]
  /// Names of airlines by carrier.
  public var airlines: [String: String] = [:]
  public var routes: [String: DelayCounts] = [:]
  /// Flights by how late they were.
  public var classes: [String: Int] = [:]

  public init() {}

  /// The groups in order of their figure, best first; groups without any known delay are left out.
  public func ranking(_ question: Question) -> Ranking {
    question.of == .carrier
      ? Ranking(question, groups: carriers, names: airlines) : Ranking(question, groups: routes, names: [:])
  }

  public func totals() -> Totals {
    Totals(carriers: carriers.mapValues(Figures.init), routes: routes.mapValues(Figures.init), classes: classes)
  }
}

/// The figures of one group, as they are told to others.
public struct Figures: Codable, Equatable, Sendable {
  public var flights: Int
  public var missing: Int
  public var sum: Int
  public var mean: Double?
  public var median: Double?

  init(_ counts: DelayCounts) {
    flights = counts.flights
    missing = counts.missing
    sum = counts.sum
    mean = counts.mean
    median = counts.median
  }
}

/// The answer of the slot `totals`.
public struct Totals: Codable, Sendable {
  public var carriers: [String: Figures]
  public var routes: [String: Figures]
  public var classes: [String: Int]
}
