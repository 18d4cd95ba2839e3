import GrapeCore
import GrapePackages
import Testing

@Suite struct ProfileTests {
  private func problems(_ yaml: String) -> String {
    do throws(ManifestError) {
      _ = try Profile(yaml: yaml)
      return ""
    } catch {
      return error.description
    }
  }

  @Test func everyFieldIsRead() throws {
    let profile = try Profile(
      yaml: """
        workers: {min: 1, max: 8}
        grow-threshold: 500
        credits: 2
        batch-bytes: 1MiB
        idle-timeout: 0
        startup-timeout: 1m
        request-timeout: 1.5s
        termination-timeout: 250ms
        heartbeat: 1s
        retry: {attempts: 5, backoff: 1s, max-backoff: 1h}
        queue-limit: 1000000
        durability: memory
        compression: zstd:7
        environment: {ZED: "", PORT: 8080, ALPHA: a b}
        inherit-environment: [PATH]
        log-bytes: 65536
        """)
    #expect(profile.workers == Profile.Workers(min: 1, max: 8))
    #expect(profile.growThreshold == 500)
    #expect(profile.credits == 2)
    #expect(profile.batchBytes == 1 << 20)
    #expect(profile.idleTimeout == .zero)
    #expect(profile.startupTimeout == .seconds(60))
    #expect(profile.requestTimeout == .milliseconds(1500))
    #expect(profile.terminationTimeout == .milliseconds(250))
    #expect(profile.heartbeat == .seconds(1))
    #expect(profile.retry == Profile.Retry(attempts: 5, backoff: .seconds(1), maxBackoff: .seconds(3600)))
    #expect(profile.queueLimit == 1_000_000)
    #expect(profile.durability == .memory)
    #expect(profile.compression == .zstd(level: 7))
    #expect(
      profile.environment == [
        Profile.Variable("ALPHA", "a b"), Profile.Variable("PORT", "8080"), Profile.Variable("ZED", ""),
      ])
    #expect(profile.inheritEnvironment == ["PATH"])
    #expect(profile.logBytes == 65536)
  }

  @Test(arguments: ["gzip", "zstd:0", "zstd:-0", "zstd:20", "zstd:-8", "zstd:x", "zstd:03", "zstd:+3", "zstd:"])
  func aCompressionThatDoesNotExistIsNamed(_ text: String) {
    #expect(
      problems("compression: \"\(text)\"").contains(
        "use none, zstd, zstd:1 (fast) to zstd:19 (small), or zstd:-1 to zstd:-7 (fastest)"))
  }

  @Test(arguments: [("none", nil), ("zstd", 1), ("zstd:1", 1), ("zstd:19", 19), ("zstd:-1", -1), ("zstd:-7", -7)])
  func everyCompressionIsReadAndReadsAgainAsItDescribesItself(_ text: String, level: Int?) throws {
    let compression = try Profile(yaml: "compression: \"\(text)\"").compression
    #expect(compression.level == level)
    #expect(BatchCompression(compression.description) == compression)
  }

  @Test func theDefaultsAreSound() throws {
    #expect(Profile().problems().isEmpty)
    #expect(try Profile(yaml: "") == Profile())
  }

  @Test func aMinimumAloneRaisesTheMaximum() throws {
    #expect(try Profile(yaml: "workers: {min: 5}").workers == Profile.Workers(min: 5, max: 5))
    #expect(try Profile(yaml: "retry: {backoff: 1m}").retry.maxBackoff == .seconds(60))
  }

  @Test(arguments: [
    Case("pool-limit: 3", "profile.yaml:1:1: unknown field \"pool-limit\": use workers.max"),
    Case("worker: {}", "profile.yaml:1:1: unknown field \"worker\": did you mean \"workers\"?"),
    Case("workers: {mni: 1}", "profile.yaml:1:11: workers: unknown field \"mni\": did you mean \"min\"?"),
    Case("workers: 3", "profile.yaml:1:10: workers: is a single value: write a mapping, for instance \"min: …\""),
    Case("request-timeout: 0", "profile.yaml:1:18: request-timeout: 0 is out of range: use 10ms to 1d"),
    Case(
      "request-timeout: soon",
      "profile.yaml:1:18: request-timeout: \"soon\" is no duration: write a number and a unit, for instance 250ms, 5s or 2m"
    ),
    Case(
      "request-timeout: 5 parsecs",
      "profile.yaml:1:18: request-timeout: \"5 parsecs\" has the unknown unit \"parsecs\": use us, ms, s, m, h or d, for instance 5s"
    ),
    Case("batch-bytes: 1KiB", "profile.yaml:1:14: batch-bytes: 1KiB is out of range: use 4KiB to 32MiB"),
    Case(
      "log-bytes: 5XB",
      "profile.yaml:1:12: log-bytes: \"5XB\" has the unknown unit \"XB\": use B, KiB, MiB, GiB or TiB, for instance 5KiB"
    ),
    Case("durability: ram", "profile.yaml:1:13: durability: \"ram\" is no durability: use disk, os or memory"),
    Case(
      "retry: {attempts: 0, backoff: 1m, max-backoff: 1s}",
      """
      profile.yaml:1:19: retry.attempts: 0 is out of range: use 1 to 1000
      profile.yaml:1:48: retry.max-backoff: 1s is less than retry.backoff, which is 1m
      """),
    Case(
      "environment: {GRAPE_APP: x, 1A: y, B: [z]}",
      """
      profile.yaml:1:26: environment.GRAPE_APP: GRAPE_APP is set by the node: names that begin with GRAPE_ are reserved
      profile.yaml:1:33: environment.1A: "1A" is no name of an environment variable: use letters, digits and "_", not beginning with a digit
      profile.yaml:1:36: environment.B: is a list: write a text, for instance production
      """),
    Case(
      "inherit-environment: [A=B]",
      "profile.yaml:1:23: inherit-environment[0]: \"A=B\" is no name of an environment variable: use letters, digits and \"_\", not beginning with a digit"
    ),
    Case(
      "inherit-environment: ALL",
      "profile.yaml:1:22: inherit-environment: is \"ALL\": write a list, for instance [PATH]"),
    Case("credits:", "profile.yaml:1:1: credits: is empty: write a whole number, for instance 4"),
  ])
  func badProfilesSayWhatIsWrongAndWhere(_ example: Case) {
    #expect(problems(example.yaml) == example.expected)
  }
}
