internal import GrapeCore

/// The topics of a manifest that are not Grape's.
extension FieldReader {
  /// Reads `sources`: topics, each with the name of a slot, or with more to say.
  mutating func sources(_ entry: YAMLNode.Entry?) -> [Manifest.Source] {
    guard let entry else { return [] }
    let root = FieldPath().key("sources")
    var result: [Manifest.Source] = []
    for source in entries(entry.value, root, example: "orders: order") {
      let path = root.key(source.key)
      locate(path, source.keyMark)
      guard let topic = topicName(source.key, source.keyMark, root) else { continue }
      if let read = self.source(topic, source, path) { result.append(read) }
    }
    return result
  }

  private mutating func source(_ topic: TopicName, _ entry: YAMLNode.Entry, _ path: FieldPath) -> Manifest.Source? {
    if case .scalar(let text, _) = entry.value.content, !entry.value.isNull {
      locate(path.key("slot"), entry.mark, shown: path)
      return slotName(text, entry.mark, path).map { Manifest.Source(topic: topic, slot: $0) }
    }
    let fields = fields(
      entry.value, path, allowed: ["slot", "start", "key", "optional"],
      meant: ["event": "slot", "from": "start", "offset": "start", "begin": "start"])
    guard let slot = fields["slot"] else {
      report(
        entry.keyMark, path,
        "the field \"slot\" is missing: name the slot that the topic's records come to, for instance \"slot: order\"")
      return nil
    }
    guard let name = text(slot, path.key("slot"), example: "order"),
      let slotName = slotName(name, slot.mark, path.key("slot"))
    else { return nil }
    var source = Manifest.Source(topic: topic, slot: slotName)
    if let start = fields["start"], let text = text(start, path.key("start"), example: "earliest") {
      if let value = Manifest.Source.Start(text) {
        source.start = value
      } else {
        report(
          start.mark, path.key("start"),
          "\(text.quotedForMessage) is no start: use earliest, latest or a time (2026-11-01T00:00:00Z)")
      }
    }
    if let key = fields["key"], let text = text(key, path.key("key"), example: "record") {
      if let value = Manifest.Source.Key(text) {
        source.key = value
      } else {
        report(
          key.mark, path.key("key"),
          "\(text.quotedForMessage) is no source of keys: use record (the record's own key) or header:NAME")
      }
    }
    if let optional = fields["optional"] {
      if let value = boolean(optional, path.key("optional")) { source.isOptional = value }
    }
    return source
  }

  private mutating func slotName(_ text: String, _ mark: SourceMark, _ path: FieldPath) -> EventName? {
    do throws(NameError) {
      return try EventName(text)
    } catch {
      report(mark, path, error.message)
      return nil
    }
  }

  private mutating func boolean(_ entry: YAMLNode.Entry, _ path: FieldPath) -> Bool? {
    if case .scalar(let text, plain: true) = entry.value.content {
      if text == "true" { return true }
      if text == "false" { return false }
    }
    report(entry.mark, path, "write true or false")
    return nil
  }

  /// Reads a list of topics.
  mutating func topics(_ entry: YAMLNode.Entry?, _ path: FieldPath) -> [TopicName] {
    var result: [TopicName] = []
    for element in texts(entry, path, example: "shipments") {
      if let topic = topicName(element.text, element.mark, element.path) {
        locate(path.index(result.count), element.mark, shown: element.path)
        result.append(topic)
      }
    }
    return result
  }

  private mutating func topicName(_ text: String, _ mark: SourceMark, _ path: FieldPath) -> TopicName? {
    do throws(NameError) {
      return try TopicName(text)
    } catch {
      report(mark, path, error.message)
      return nil
    }
  }
}
