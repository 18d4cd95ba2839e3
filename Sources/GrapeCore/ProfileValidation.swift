/// What the fields of a profile may be. One table for the check, the messages and the documentation.
public enum ProfileBounds {
  public static let workersMin = 0...1000
  public static let workersMax = 1...1000
  public static let growThreshold = 1...1_000_000_000
  public static let credits = 1...256
  public static let batchBytes = (4 << 10)...(32 << 20)
  public static let idleTimeout: ClosedRange<Duration> = .zero...Duration.seconds(7 * 86400)
  public static let startupTimeout: ClosedRange<Duration> = .milliseconds(100)...Duration.seconds(3600)
  public static let requestTimeout: ClosedRange<Duration> = .milliseconds(10)...Duration.seconds(86400)
  public static let terminationTimeout: ClosedRange<Duration> = .zero...Duration.seconds(3600)
  public static let heartbeat: ClosedRange<Duration> = .milliseconds(100)...Duration.seconds(60)
  public static let attempts = 1...1000
  public static let backoff: ClosedRange<Duration> = .zero...Duration.seconds(3600)
  public static let maxBackoff: ClosedRange<Duration> = .zero...Duration.seconds(86400)
  public static let queueLimit = 0...1_000_000_000_000
  public static let retentionAge: ClosedRange<Duration> = .zero...Duration.seconds(3650 * 86400)
  public static let retentionSize = 0...(1 << 50)
  public static let commitInterval: ClosedRange<Duration> = .zero...Duration.seconds(60)
  public static let idempotencyWindow: ClosedRange<Duration> = .seconds(1)...Duration.seconds(365 * 86400)
  public static let idempotencyKeys = 1...10_000_000
  public static let logBytes = (64 << 10)...(1 << 30)
  /// Most variables in `environment` and names in `inherit-environment`.
  public static let variables = 256
  /// Most bytes in one variable's value.
  public static let variableBytes = 64 << 10
}

extension Profile {
  /// Everything that is wrong with the profile, in the order of its fields; empty if it is sound.
  public func problems() -> [FieldProblem] {
    var problems: [FieldProblem] = []
    let root = FieldPath()

    func check(_ path: FieldPath, _ value: Int, _ bounds: ClosedRange<Int>, bytes: Bool = false) {
      guard !bounds.contains(value) else { return }
      func show(_ number: Int) -> String { bytes ? ByteCountText.format(number) : "\(number)" }
      problems.append(
        FieldProblem(
          path, "\(show(value)) is out of range: use \(show(bounds.lowerBound)) to \(show(bounds.upperBound))"))
    }
    func check(_ path: FieldPath, _ value: Duration, _ bounds: ClosedRange<Duration>) {
      guard !bounds.contains(value) else { return }
      let (least, most) = (DurationText.format(bounds.lowerBound), DurationText.format(bounds.upperBound))
      problems.append(
        FieldProblem(path, "\(DurationText.format(value)) is out of range: use \(least) to \(most)"))
    }

    check(root.key("workers").key("min"), workers.min, ProfileBounds.workersMin)
    check(root.key("workers").key("max"), workers.max, ProfileBounds.workersMax)
    if workers.min > workers.max, ProfileBounds.workersMax.contains(workers.max) {
      problems.append(
        FieldProblem(
          root.key("workers").key("min"), "\(workers.min) is more than workers.max, which is \(workers.max)"))
    }
    check(root.key("grow-threshold"), growThreshold, ProfileBounds.growThreshold)
    check(root.key("credits"), credits, ProfileBounds.credits)
    check(root.key("batch-bytes"), batchBytes, ProfileBounds.batchBytes, bytes: true)
    check(root.key("idle-timeout"), idleTimeout, ProfileBounds.idleTimeout)
    check(root.key("startup-timeout"), startupTimeout, ProfileBounds.startupTimeout)
    check(root.key("request-timeout"), requestTimeout, ProfileBounds.requestTimeout)
    check(root.key("termination-timeout"), terminationTimeout, ProfileBounds.terminationTimeout)
    check(root.key("heartbeat"), heartbeat, ProfileBounds.heartbeat)
    check(root.key("retry").key("attempts"), retry.attempts, ProfileBounds.attempts)
    check(root.key("retry").key("backoff"), retry.backoff, ProfileBounds.backoff)
    check(root.key("retry").key("max-backoff"), retry.maxBackoff, ProfileBounds.maxBackoff)
    if retry.maxBackoff < retry.backoff {
      let (most, first) = (DurationText.format(retry.maxBackoff), DurationText.format(retry.backoff))
      problems.append(
        FieldProblem(root.key("retry").key("max-backoff"), "\(most) is less than retry.backoff, which is \(first)"))
    }
    check(root.key("queue-limit"), queueLimit, ProfileBounds.queueLimit)
    check(root.key("retention-age"), retentionAge, ProfileBounds.retentionAge)
    check(root.key("retention-size"), retentionSize, ProfileBounds.retentionSize, bytes: true)
    check(root.key("commit-interval"), commitInterval, ProfileBounds.commitInterval)
    check(root.key("idempotency").key("window"), idempotency.window, ProfileBounds.idempotencyWindow)
    check(root.key("idempotency").key("keys"), idempotency.keys, ProfileBounds.idempotencyKeys)
    environmentProblems(&problems)
    check(root.key("log-bytes"), logBytes, ProfileBounds.logBytes, bytes: true)
    return problems
  }

  private func environmentProblems(_ problems: inout [FieldProblem]) {
    let variables = FieldPath().key("environment")
    if environment.count > ProfileBounds.variables {
      problems.append(
        FieldProblem(variables, "has \(environment.count) variables: at most \(ProfileBounds.variables) are allowed"))
    }
    var seen: Set<String> = []
    for variable in environment {
      let path = variables.key(variable.name)
      if let message = Self.variableNameProblem(variable.name) {
        problems.append(FieldProblem(path, message))
      } else if !seen.insert(variable.name).inserted {
        problems.append(FieldProblem(path, "is there twice"))
      } else if variable.value.utf8.contains(0) {
        problems.append(FieldProblem(path, "contains a zero byte, which no environment variable can"))
      } else if variable.value.utf8.count > ProfileBounds.variableBytes {
        problems.append(
          FieldProblem(
            path,
            "has \(variable.value.utf8.count) bytes: at most "
              + "\(ByteCountText.format(ProfileBounds.variableBytes)) are allowed"
          ))
      }
    }
    let inherited = FieldPath().key("inherit-environment")
    if inheritEnvironment.count > ProfileBounds.variables {
      problems.append(
        FieldProblem(
          inherited, "has \(inheritEnvironment.count) names: at most \(ProfileBounds.variables) are allowed"))
    }
    for (index, name) in inheritEnvironment.enumerated() {
      if let message = Self.variableNameProblem(name) {
        problems.append(FieldProblem(inherited.index(index), message))
      }
    }
  }

  private static func variableNameProblem(_ name: String) -> String? {
    let letters = name.utf8
    guard let first = letters.first else { return "is empty: write the name of an environment variable" }
    func isLetter(_ byte: UInt8) -> Bool {
      byte == UInt8(ascii: "_") || UInt8(ascii: "a")...UInt8(ascii: "z") ~= byte | 0x20
    }
    guard isLetter(first), letters.allSatisfy({ isLetter($0) || UInt8(ascii: "0")...UInt8(ascii: "9") ~= $0 }),
      letters.count <= 255
    else {
      return
        "\(name.quotedForMessage) is no name of an environment variable: use letters, digits and \"_\", not "
        + "beginning with a digit"
    }
    if name.hasPrefix("GRAPE_") { return "\(name) is set by the node: names that begin with GRAPE_ are reserved" }
    return nil
  }
}
