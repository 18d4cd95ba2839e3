import GrapeCommitLog
import GrapeLog
import GrapeTestKit
import Testing

@Suite("Every event log keeps the contract") struct ConformanceTests {
  @Test("in memory", arguments: EventLogConformance.all)
  func inMemory(_ promise: EventLogConformance.Case) async throws {
    try await promise.run(on: EventLogFixture { InMemoryEventLog() })
  }

  @Test("embedded", arguments: EventLogConformance.all)
  func embedded(_ promise: EventLogConformance.Case) async throws {
    try await promise.run(on: fixture(CommitLogOptions()))
  }

  @Test(
    "embedded, with segments and memory so small that everything is full all the time",
    arguments: EventLogConformance.all)
  func embeddedSmall(_ promise: EventLogConformance.Case) async throws {
    var options = CommitLogOptions()
    options.segmentBytes = 1 << 20
    options.tailCacheBytes = 0
    options.groupBytes = 4_096
    options.openSegments = 1
    try await promise.run(on: fixture(options))
  }

  private func fixture(_ options: CommitLogOptions) -> EventLogFixture {
    let directory = TemporaryDirectory()
    let open: @Sendable () throws -> any EventLog = {
      try CommitLog.open(directory: directory.path, options: options).0
    }
    return EventLogFixture(open: { try open() }, reopen: { _ in try open() })
  }
}
