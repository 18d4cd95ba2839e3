internal import GrapeCore

extension FieldReader {
  private static let manifestFields = [
    "grape", "name", "description", "runtime", "entry", "command", "partitions", "slots", "signals", "sources",
    "include",
    "exclude",
    "config", "profile",
  ]

  private static let manifestSynonyms = [
    "version": "grape (the format's version; a package's own version is the hash of its content)", "type": "runtime",
    "language": "runtime", "main": "entry", "script": "entry", "product": "entry", "handlers": "slots",
    "workers": "profile.workers", "environment": "profile.environment", "retry": "profile.retry",
    "durability": "profile.durability", "topics": "sources", "inputs": "sources",
    "sinks": "signals (a signal's \"topics\" are where its events go besides slots)",
    "outputs": "signals (a signal's \"topics\" are where its events go besides slots)",
  ]

  /// Reads a manifest. What is missing or wrong is reported and replaced by something harmless.
  mutating func manifest(_ root: YAMLNode) -> Manifest {
    let path = FieldPath()
    let fields = fields(root, path, allowed: Self.manifestFields, meant: Self.manifestSynonyms)
    formatVersion(fields["grape"], root)
    let name = appName(fields["name"], root)
    let runtime = runtime(fields, root)

    if fields["slots"] == nil {
      report(root.mark, path, "the field \"slots\" is missing: write for instance \"slots: {raw: {}}\"")
    }
    let slots = slots(fields["slots"])
    let signals = signals(fields["signals"])
    var config = JSONValue.object([])
    if let entry = fields["config"], !entry.value.isNull {
      if case .mapping = entry.value.content {
        config = json(entry.value, path.key("config"))
      } else {
        report(entry.mark, path.key("config"), "is \(entry.value.kind): write a mapping, for instance \"threshold: 5\"")
      }
    }
    return Manifest(
      name: name,
      description: text(fields["description"], path.key("description"), example: "Parses flights.") ?? "",
      runtime: runtime,
      partitions: integer(fields["partitions"], path.key("partitions"), example: 4) ?? 4,
      slots: slots, signals: signals, sources: sources(fields["sources"]),
      include: patterns(fields["include"], path.key("include")),
      exclude: patterns(fields["exclude"], path.key("exclude")),
      config: config,
      profile: fields["profile"].map { profile($0.value, path.key("profile")) } ?? Profile())
  }

  private mutating func formatVersion(_ entry: YAMLNode.Entry?, _ root: YAMLNode) {
    let known = Manifest.formatVersion
    guard let entry else {
      return report(
        root.mark, FieldPath(),
        "the field \"grape\" (version of the format) is missing: begin the file with \"grape: \(known)\"")
    }
    let path = FieldPath().key("grape")
    if let version = integer(entry, path, example: known), version != known {
      report(entry.mark, path, "format version \(version) is not known here: this grape reads version \(known)")
    }
  }

  private mutating func appName(_ entry: YAMLNode.Entry?, _ root: YAMLNode) -> AppName {
    if entry == nil {
      report(
        root.mark, FieldPath(), "the field \"name\" is missing: name the application, for instance \"name: flights\"")
    }
    let path = FieldPath().key("name")
    if let entry, let text = text(entry, path, example: "flights") {
      do throws(NameError) {
        return try AppName(text)
      } catch {
        report(entry.mark, path, error.message)
      }
    }
    return .unknown
  }

  private mutating func runtime(_ fields: [String: YAMLNode.Entry], _ root: YAMLNode) -> Manifest.Runtime {
    let harmless = Manifest.Runtime.python(entry: "app.py")
    let choice = Manifest.Runtime.names.joined(separator: ", ")
    guard let entry = fields["runtime"] else {
      report(root.mark, FieldPath(), "the field \"runtime\" is missing: write one of \(choice)")
      return harmless
    }
    let path = FieldPath().key("runtime")
    guard let name = text(entry, path, example: "python") else { return harmless }
    guard Manifest.Runtime.names.contains(name) else {
      report(
        entry.mark, path,
        "\(name.quotedForMessage) is no runtime\(Suggestion.hint(for: name, among: Manifest.Runtime.names))")
      return harmless
    }
    let (needed, foreign) = name == "executable" ? ("command", "entry") : ("entry", "command")
    if let surplus = fields[foreign] {
      report(surplus.keyMark, FieldPath().key(foreign), "does not belong to runtime \(name): use \"\(needed)\"")
    }
    guard let value = fields[needed] else {
      let example = [
        "python": "entry: app.py", "swift": "entry: MyApp", "executable": "command: [./bin/stats, --fast]",
      ]
      report(
        entry.mark, FieldPath(),
        "runtime \(name) needs the field \"\(needed)\", for instance \"\(example[name] ?? "")\"")
      return harmless
    }
    switch name {
    case "python":
      return text(value, FieldPath().key("entry"), example: "app.py").map { .python(entry: $0) } ?? harmless
    case "swift": return text(value, FieldPath().key("entry"), example: "MyApp").map { .swift(product: $0) } ?? harmless
    default:
      let words = texts(value, FieldPath().key("command"), example: "./bin/stats").map(\.text)
      if words.isEmpty, case .sequence(let elements) = value.value.content, !elements.isEmpty { return harmless }
      if words.isEmpty, !value.value.isNull, case .scalar = value.value.content { return harmless }
      return .executable(command: words)
    }
  }

  private mutating func slots(_ entry: YAMLNode.Entry?) -> [Manifest.Slot] {
    guard let entry else { return [.unknown] }
    let root = FieldPath().key("slots")
    var result: [Manifest.Slot] = []
    for slot in entries(entry.value, root, example: "raw: {emits: [parsed]}") {
      let path = root.key(slot.key)
      guard let name = eventName(slot, path) else { continue }
      let fields = fields(
        slot.value, path, allowed: ["description", "emits", "optional"], meant: ["emit": "emits", "calls": "emits"])
      result.append(
        Manifest.Slot(
          name: name,
          description: text(fields["description"], path.key("description"), example: "Parses lines.") ?? "",
          emits: targets(fields["emits"], path.key("emits")),
          optional: targets(fields["optional"], path.key("optional"))))
    }
    // What is there but unusable was reported: it must not look like an empty mapping too.
    if result.isEmpty, case .mapping(let entries) = entry.value.content, !entries.isEmpty { return [.unknown] }
    if result.isEmpty, !entry.value.isNull, case .scalar = entry.value.content { return [.unknown] }
    if result.isEmpty, case .sequence = entry.value.content { return [.unknown] }
    return result
  }

  private mutating func signals(_ entry: YAMLNode.Entry?) -> [Manifest.Signal] {
    guard let entry else { return [] }
    let root = FieldPath().key("signals")
    var result: [Manifest.Signal] = []
    for signal in entries(entry.value, root, example: "enriched: [stats@flight]") {
      let path = root.key(signal.key)
      guard let name = eventName(signal, path) else { continue }
      guard case .mapping = signal.value.content else {
        let list = targets(signal.value, signal.mark, path, stored: path.key("slots"))
        result.append(Manifest.Signal(name: name, slots: list))
        continue
      }
      let fields = fields(
        signal.value, path, allowed: ["slots", "optional", "description", "topics"],
        meant: ["topic": "topics (a list)", "sinks": "topics", "slot": "slots (a list)"])
      result.append(
        Manifest.Signal(
          name: name,
          description: text(fields["description"], path.key("description"), example: "A flight with all it lacks.")
            ?? "",
          slots: targets(fields["slots"], path.key("slots")),
          optional: targets(fields["optional"], path.key("optional")),
          topics: topics(fields["topics"], path.key("topics"))))
    }
    return result
  }

  private mutating func eventName(_ entry: YAMLNode.Entry, _ path: FieldPath) -> EventName? {
    locate(path, entry.keyMark)
    do throws(NameError) {
      return try EventName(entry.key)
    } catch {
      report(entry.keyMark, path.parent, error.message)
      return nil
    }
  }

  private mutating func targets(_ entry: YAMLNode.Entry?, _ path: FieldPath) -> [Manifest.Target] {
    guard let entry else { return [] }
    return targets(entry.value, entry.mark, path, stored: path)
  }

  /// Reads a list of names. `stored` is the path by which the finished manifest knows the list.
  private mutating func targets(
    _ node: YAMLNode, _ mark: SourceMark, _ path: FieldPath, stored: FieldPath
  ) -> [Manifest.Target] {
    var result: [Manifest.Target] = []
    for element in texts(node, mark, path, example: "parsed, stats@flight") {
      do throws(NameError) {
        let target = try Manifest.Target(element.text)
        locate(stored.index(result.count), element.mark, shown: element.path)
        result.append(target)
      } catch {
        report(element.mark, element.path, error.message)
      }
    }
    return result
  }

  private mutating func patterns(_ entry: YAMLNode.Entry?, _ path: FieldPath) -> [String] {
    var result: [String] = []
    for element in texts(entry, path, example: "\"*.csv\"") {
      do throws(GlobError) {
        _ = try GlobPattern(element.text)
        result.append(element.text)
      } catch {
        report(element.mark, element.path, error.message)
      }
    }
    return result
  }
}

extension AppName {
  /// Stands in for a name that could not be read, so that the rest of the manifest can still be checked.
  fileprivate static let unknown: AppName = {
    do throws(NameError) { return try AppName("unknown") } catch { preconditionFailure(error.message) }
  }()
}

extension Manifest.Slot {
  /// Stands in for slots that could not be read.
  fileprivate static let unknown: Manifest.Slot = {
    do throws(NameError) { return Manifest.Slot(name: try EventName("unknown")) } catch {
      preconditionFailure(error.message)
    }
  }()
}
