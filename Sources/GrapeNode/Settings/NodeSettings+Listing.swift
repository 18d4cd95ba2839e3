public import GrapeCore
internal import GrapeKafka
public import GrapePackages

/// A setting as it holds.
public struct EffectiveSetting: Hashable, Sendable {
  public var name: String
  /// Fit to be shown: of secrets it is `(secret)`.
  public var value: String
  /// Where it was given, or `default`.
  public var place: String

  public var json: JSONValue { ["name": .string(name), "value": .string(value), "from": .string(place)] }
}

extension NodeSettings {
  /// All settings as they hold, in the order of the documentation.
  ///
  /// - Parameters:
  ///   - data, nodeName: what holds if nothing was said.
  public func effective(data defaultData: String, nodeName: String) -> [EffectiveSetting] {
    let folder = data?.value ?? defaultData
    var rows = [
      row("data", data, folder), row("socket", socket, folder + "/node.sock"), row("name", name, nodeName),
      row("log", log.map { Placed($0.value.description, $0.place) }, "embedded"),
      row("log-level", logLevel, "info"),
      row("log-format", logFormat.map { Placed($0.value.rawValue, $0.place) }, "text"),
    ]
    guard case .kafka(let brokers) = log?.value ?? .embedded else {
      let segment = segmentSize?.value ?? NodeSettings.defaultSegmentSize
      rows.append(row("segment-size", size(segmentSize), ByteCountText.format(segment)))
      rows.append(row("low-space", size(lowSpace), ByteCountText.format(2 * segment)))
      return rows
    }
    let configuration = kafkaConfiguration(brokers: brokers)
    func milliseconds(_ count: Int) -> String { DurationText.format(.milliseconds(count)) }
    rows += [
      row("kafka.namespace", kafka.namespace, ""),
      row("kafka.external-namespace", kafka.externalNamespace, ""),
      row("kafka.replication", kafka.replication.map { Placed("\($0.value)", $0.place) }, "as the brokers have it"),
      row("kafka.request-timeout", duration(kafka.requestTimeout), milliseconds(configuration.requestTimeout)),
      row("kafka.commit-timeout", duration(kafka.commitTimeout), milliseconds(configuration.commitTimeout)),
      row("kafka.commit-interval", duration(kafka.commitInterval), milliseconds(configuration.commitInterval)),
      row("kafka.commit-size", size(kafka.commitSize), ByteCountText.format(configuration.commitBytes)),
    ]
    rows += [
      row(
        "kafka.transaction-timeout", duration(kafka.transactionTimeout), milliseconds(configuration.transactionTimeout)),
      row("kafka.session-timeout", duration(kafka.sessionTimeout) ?? kafka.sessionSetting, "10s"),
      row("kafka.revocation-timeout", duration(kafka.revocationTimeout), milliseconds(configuration.revocationTimeout)),
    ]
    for (name, setting) in kafka.settings.sorted(by: { $0.key < $1.key }) {
      let shown = KafkaConfiguration.isSecret(name) ? Placed("(secret)", setting.place) : setting
      rows.append(row("kafka.settings.\(name)", shown, ""))
    }
    for (name, source) in kafka.secrets.sorted(by: { $0.key < $1.key }) {
      rows.append(row("kafka.secrets.\(name)", Placed("(secret) from \(source.value)", source.place), ""))
    }
    for (name, value) in configuration.topicSettings.sorted(by: { $0.key < $1.key }) {
      rows.append(row("kafka.topic-settings.\(name)", kafka.topicSettings[name], value))
    }
    return rows
  }

  /// Bytes of one segment of the embedded log if nothing is said.
  public static let defaultSegmentSize = 256 << 20

  private func row(_ name: String, _ given: Placed<String>?, _ standard: String) -> EffectiveSetting {
    EffectiveSetting(name: name, value: given?.value ?? standard, place: given?.place ?? "default")
  }

  private func size(_ given: Placed<Int>?) -> Placed<String>? {
    given.map { Placed(ByteCountText.format($0.value), $0.place) }
  }

  private func duration(_ given: Placed<Duration>?) -> Placed<String>? {
    given.map { Placed(DurationText.format($0.value), $0.place) }
  }
}

extension NodeSettings.Kafka {
  /// The same as librdkafka's own setting, as that is written.
  fileprivate var sessionSetting: Placed<String>? {
    settings["session.timeout.ms"].map { Placed("\($0.value)ms", $0.place) }
  }
}
