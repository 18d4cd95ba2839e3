internal import GrapeCore

extension FieldReader {
  private static let profileFields = [
    "workers", "grow-threshold", "credits", "batch-bytes", "idle-timeout", "startup-timeout", "request-timeout",
    "termination-timeout", "heartbeat", "retry", "queue-limit", "durability", "compression", "environment",
    "inherit-environment", "log-bytes", "retention-age", "retention-size", "idempotency",
    "guarantee", "commit-interval",
  ]

  /// What people call some fields elsewhere.
  private static let profileSynonyms = [
    "pool-limit": "workers.max", "max-workers": "workers.max", "min-workers": "workers.min", "concurrency": "credits",
    "timeout": "request-timeout", "heartbeat-timeout": "heartbeat", "retries": "retry.attempts", "env": "environment",
    "crashlog-limit": "log-bytes",
    "processing-guarantee": "guarantee", "retention": "retention-age", "retention-bytes": "retention-size",
  ]

  /// Reads a profile. Fields that are missing or wrong have their defaults.
  mutating func profile(_ node: YAMLNode, _ root: FieldPath) -> Profile {
    var profile = Profile()
    let fields = fields(node, root, allowed: Self.profileFields, meant: Self.profileSynonyms)

    func set<Value>(_ target: inout Value, _ value: Value?) { if let value { target = value } }

    if let entry = fields["workers"] {
      let path = root.key("workers")
      let workers = self.fields(entry.value, path, allowed: ["min", "max"])
      set(&profile.workers.min, integer(workers["min"], path.key("min"), example: 0))
      set(&profile.workers.max, integer(workers["max"], path.key("max"), example: 2))
      // A minimum that is given alone raises the maximum with it.
      if workers["max"] == nil { profile.workers.max = max(profile.workers.max, profile.workers.min) }
    }
    set(&profile.growThreshold, integer(fields["grow-threshold"], root.key("grow-threshold"), example: 1000))
    set(&profile.credits, integer(fields["credits"], root.key("credits"), example: 4))
    set(&profile.batchBytes, byteCount(fields["batch-bytes"], root.key("batch-bytes")))
    set(&profile.idleTimeout, duration(fields["idle-timeout"], root.key("idle-timeout")))
    set(&profile.startupTimeout, duration(fields["startup-timeout"], root.key("startup-timeout")))
    set(&profile.requestTimeout, duration(fields["request-timeout"], root.key("request-timeout")))
    set(&profile.terminationTimeout, duration(fields["termination-timeout"], root.key("termination-timeout")))
    set(&profile.heartbeat, duration(fields["heartbeat"], root.key("heartbeat")))
    if let entry = fields["retry"] {
      let path = root.key("retry")
      let retry = self.fields(
        entry.value, path, allowed: ["attempts", "backoff", "max-backoff"], meant: ["max-attempts": "attempts"])
      set(&profile.retry.attempts, integer(retry["attempts"], path.key("attempts"), example: 3))
      set(&profile.retry.backoff, duration(retry["backoff"], path.key("backoff")))
      set(&profile.retry.maxBackoff, duration(retry["max-backoff"], path.key("max-backoff")))
      if retry["max-backoff"] == nil { profile.retry.maxBackoff = max(profile.retry.maxBackoff, profile.retry.backoff) }
    }
    set(&profile.queueLimit, integer(fields["queue-limit"], root.key("queue-limit"), example: 0))
    set(&profile.retentionAge, duration(fields["retention-age"], root.key("retention-age")))
    set(&profile.retentionSize, byteCount(fields["retention-size"], root.key("retention-size")))
    if let entry = fields["idempotency"] {
      let path = root.key("idempotency")
      let idempotency = self.fields(
        entry.value, path, allowed: ["window", "keys"], meant: ["age": "window", "count": "keys"])
      set(&profile.idempotency.window, duration(idempotency["window"], path.key("window")))
      set(&profile.idempotency.keys, integer(idempotency["keys"], path.key("keys"), example: 100_000))
    }
    durability(fields["durability"], root.key("durability"), &profile)
    guarantee(fields["guarantee"], root.key("guarantee"), &profile)
    set(&profile.commitInterval, duration(fields["commit-interval"], root.key("commit-interval")))
    compression(fields["compression"], root.key("compression"), &profile)
    environment(fields["environment"], root.key("environment"), &profile)
    if let entry = fields["inherit-environment"] {
      profile.inheritEnvironment = texts(entry, root.key("inherit-environment"), example: "PATH").map(\.text)
    }
    set(&profile.logBytes, byteCount(fields["log-bytes"], root.key("log-bytes")))
    return profile
  }

  private mutating func durability(_ entry: YAMLNode.Entry?, _ path: FieldPath, _ profile: inout Profile) {
    guard let entry, let name = text(entry, path, example: "disk") else { return }
    if let durability = Profile.Durability(name: name) {
      profile.durability = durability
    } else {
      report(entry.mark, path, "\(name.quotedForMessage) is no durability: use disk, os or memory")
    }
  }

  private mutating func guarantee(_ entry: YAMLNode.Entry?, _ path: FieldPath, _ profile: inout Profile) {
    guard let entry, let name = text(entry, path, example: "exactly-once") else { return }
    if let guarantee = Profile.Guarantee(rawValue: name) {
      profile.guarantee = guarantee
    } else {
      report(entry.mark, path, "\(name.quotedForMessage) is no guarantee: use exactly-once or at-least-once")
    }
  }

  private mutating func compression(_ entry: YAMLNode.Entry?, _ path: FieldPath, _ profile: inout Profile) {
    guard let entry, let name = text(entry, path, example: "zstd:3") else { return }
    if let compression = BatchCompression(name) {
      profile.compression = compression
    } else {
      report(entry.mark, path, "\(name.quotedForMessage) is no compression: use \(BatchCompression.choices)")
    }
  }

  private mutating func environment(_ entry: YAMLNode.Entry?, _ path: FieldPath, _ profile: inout Profile) {
    guard let entry else { return }
    profile.environment = []
    for variable in entries(entry.value, path, example: "NAME: value") {
      let place = path.key(variable.key)
      locate(place, variable.mark)
      // An empty value is an empty variable, which is something else than none.
      if case .scalar(let text, _) = variable.value.content {
        profile.environment.append(Profile.Variable(variable.key, text))
      } else {
        report(variable.mark, place, "is \(variable.value.kind): write a text, for instance production")
      }
    }
    profile.environment.sort { $0.name < $1.name }
  }
}
