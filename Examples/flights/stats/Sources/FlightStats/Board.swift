import Synchronization

/// All figures of the application. Events of different partitions may be handled at the same time, so it guards itself.
public final class Board: Sendable {
  struct State {
    var carriers: [String: DelayCounts] = [:]
    var airlines: [String: String] = [:]
    var routes: [String: DelayCounts] = [:]
    var classes: [String: Int] = [:]
  }

  private let state = Mutex(State())

  public init() {}

  public func countCarrier(of flight: Flight) {
    state.withLock {
      $0.carriers[flight.carrier, default: DelayCounts()].add(flight.delay)
      $0.airlines[flight.carrier] = flight.airline
    }
  }

  public func countRoute(of flight: Flight) {
    state.withLock { $0.routes[flight.route, default: DelayCounts()].add(flight.delay) }
  }

  public func countClass(of flight: Flight) {
    state.withLock { $0.classes[flight.class, default: 0] += 1 }
  }

  /// The groups in order of their figure, best first; groups without any known delay are left out.
  public func ranking(_ question: Question) -> Ranking {
    let (groups, names) = state.withLock {
      question.of == .carrier ? ($0.carriers, $0.airlines) : ($0.routes, [:])
    }
    return Ranking(question, groups: groups, names: names)
  }

  public func totals() -> Totals {
    state.withLock {
      Totals(
        carriers: $0.carriers.mapValues(Figures.init), routes: $0.routes.mapValues(Figures.init), classes: $0.classes)
    }
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
