internal import GrapeCore

extension Manifest {
  /// As in grape.yaml, for `app.info`.
  var json: JSONValue {
    var members: [JSONValue.Member] = [
      .init("grape", .int(Int64(Manifest.formatVersion))), .init("name", .string(name.text)),
      .init("description", .string(description)), .init("runtime", .string(runtime.name)),
    ]
    switch runtime {
    case .python(let entry): members.append(.init("entry", .string(entry)))
    case .swift(let product): members.append(.init("entry", .string(product)))
    case .executable(let command): members.append(.init("command", JSONValue(strings: command)))
    }
    members += [
      .init("partitions", JSONValue(partitions)),
      .init("slots", .object(slots.map { .init($0.name.text, $0.json) })),
      .init("signals", .object(signals.map { .init($0.name.text, $0.json) })),
      .init("sources", .object(sources.map { .init($0.topic.text, $0.json) })),
      .init("config", config),
    ]
    return .object(members)
  }
}

extension Manifest.Signal {
  /// The slots connected; with more to say, an object.
  fileprivate var json: JSONValue {
    let slots = JSONValue(strings: slots.map(\.description))
    return topics.isEmpty ? slots : ["slots": slots, "topics": JSONValue(strings: topics.map(\.text))]
  }
}

extension Manifest.Source {
  fileprivate var json: JSONValue {
    [
      "slot": .string(slot.text), "start": .string(start.description), "key": .string(key.description),
      "optional": .bool(isOptional),
    ]
  }
}

extension Manifest.Slot {
  fileprivate var json: JSONValue {
    [
      "description": .string(description), "emits": JSONValue(strings: emits.map(\.description)),
      "optional": JSONValue(strings: optional.map(\.description)),
    ]
  }
}

extension Profile {
  /// As in profile.yaml, for `app.info`; durations in milliseconds.
  var json: JSONValue {
    [
      "workers": ["min": JSONValue(workers.min), "max": JSONValue(workers.max)],
      "grow-threshold": JSONValue(growThreshold), "credits": JSONValue(credits), "batch-bytes": JSONValue(batchBytes),
      "idle-timeout-ms": milliseconds(idleTimeout), "startup-timeout-ms": milliseconds(startupTimeout),
      "request-timeout-ms": milliseconds(requestTimeout), "termination-timeout-ms": milliseconds(terminationTimeout),
      "heartbeat-ms": milliseconds(heartbeat),
      "retry": [
        "attempts": JSONValue(retry.attempts), "backoff-ms": milliseconds(retry.backoff),
        "max-backoff-ms": milliseconds(retry.maxBackoff),
      ],
      "queue-limit": JSONValue(queueLimit), "retention-age-ms": milliseconds(retentionAge),
      "retention-size": JSONValue(retentionSize),
      "idempotency": [
        "window-ms": milliseconds(idempotency.window), "keys": JSONValue(idempotency.keys),
      ], "durability": .string(durability.description),
      "guarantee": .string(guarantee.description), "commit-interval-ms": milliseconds(commitInterval),
      "compression": .string(compression.description),
      // Values may be secrets: names only.
      "environment": JSONValue(strings: environment.map(\.name)),
      "inherit-environment": JSONValue(strings: inheritEnvironment), "log-bytes": JSONValue(logBytes),
    ]
  }

  private func milliseconds(_ duration: Duration) -> JSONValue {
    .int(duration.components.seconds * 1000 + duration.components.attoseconds / 1_000_000_000_000_000)
  }
}
