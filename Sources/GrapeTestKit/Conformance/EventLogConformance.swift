public import GrapeLog

/// The promises of `EventLog`, as test cases that any implementation can be held to, with any test framework:
///
/// ```swift
/// @Test(arguments: EventLogConformance.all)
/// func keepsPromise(_ promise: EventLogConformance.Case) async throws {
///   try await promise.run(on: EventLogFixture { try await MyLog.open() })
/// }
/// ```
public enum EventLogConformance {
  /// One promise.
  public struct Case: Sendable, CustomStringConvertible {
    /// What is promised, as a sentence.
    public let name: String
    /// True if the case needs a log that can be closed and opened again.
    public let needsReopening: Bool
    let body: @Sendable (LogProbe) async throws -> Void

    init(
      _ name: String, needsReopening: Bool = false, _ body: @escaping @Sendable (LogProbe) async throws -> Void
    ) {
      self.name = name
      self.needsReopening = needsReopening
      self.body = body
    }

    public var description: String { name }

    /// Opens a log, tries the case, closes the log. Errors: `ConformanceFailure`, or what the log threw where it
    /// should not have. A case that needs reopening passes trivially if the fixture cannot.
    public func run(on fixture: EventLogFixture) async throws {
      if needsReopening && fixture.reopen == nil { return }
      let probe = LogProbe(log: try await fixture.open(), fixture: fixture)
      do {
        try await body(probe)
      } catch {
        await probe.log.close()
        throw error
      }
      await probe.log.close()
    }
  }

  /// Every case, in an order that goes from simple to involved.
  public static var all: [Case] {
    topicCases + commitCases + readCases + watchCases + groupCases + retentionCases + durabilityCases
  }
}

/// Makes the log under test.
public struct EventLogFixture: Sendable {
  /// Opens an empty log.
  public var open: @Sendable () async throws -> any EventLog
  /// Given a log that was closed, opens another on the same data. Nil: nothing survives.
  public var reopen: (@Sendable (any EventLog) async throws -> any EventLog)?
  public var traits: Traits

  public init(
    open: @escaping @Sendable () async throws -> any EventLog,
    reopen: (@Sendable (any EventLog) async throws -> any EventLog)? = nil, traits: Traits = []
  ) {
    self.open = open
    self.reopen = reopen
    self.traits = traits
  }

  /// In what a log may keep the contract in its own way: the cases then hold it to what is promised all the same.
  public struct Traits: OptionSet, Sendable {
    public let rawValue: Int
    public init(rawValue: Int) { self.rawValue = rawValue }

    /// Reads gather records in batches of their own, which begin where they were asked to.
    public static let regroupsBatches = Traits(rawValue: 1)
    /// Offsets of records ascend, but not always by one.
    public static let leavesGaps = Traits(rawValue: 2)
    /// Members of groups are told of changes after the operation that led to them.
    public static let tellsMembersLater = Traits(rawValue: 4)
    /// A transaction becomes visible whole in each partition, but perhaps in one after the other.
    public static let showsPartitionsApart = Traits(rawValue: 8)
  }
}

/// A promise that was not kept.
public struct ConformanceFailure: Error, CustomStringConvertible {
  public let message: String
  public let file: String
  public let line: Int

  public var description: String { "\(file):\(line): \(message)" }
}
