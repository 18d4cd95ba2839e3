import GrapeCore
import GrapeWire

@testable import GrapeNode
@testable import GrapePackages

extension FuzzTarget {
  static let json = FuzzTarget("json") {
    [
      #"{"a": [1, -2.5e3, true, null, "x\u00e9\ud83c\udf47\n"], "b": {}, "c": [], "": 9223372036854775807}"#,
      #"[1e308, 5e-324, -0, 0.1, 12345678901234567890]"#, String(repeating: "[", count: 200), #""\ud83c""#,
    ].map { Array($0.utf8) }
  } body: { bytes in
    guard let value = try taken(JSONError.self, { try JSONValue(parsing: bytes.unsafeBytes) }) else { return }
    try promise(try JSONValue(parsing: value.text) == value, "another document than was written")
    try promise(try JSONValue(parsing: value.prettyText) == value, "another document than was written for people")
  }

  /// Names, addresses and quantities, as they come in manifests, requests and command lines.
  static let names = FuzzTarget("names") {
    ["flights", "flights@raw", "a.events", "parsed_1.x-y", "250ms", "1.5s", "64KiB", "10 MB", "n1", "Größe"]
      .map { Array($0.utf8) }
  } body: { bytes in
    let text = bytes.string
    if let name = try taken(NameError.self, { try AppName(text) }) {
      try promise(name.text == text && AppName(eventsTopic: name.eventsTopic) == name, "another application")
    }
    if let name = try taken(NameError.self, { try EventName(text) }) { try promise(name.text == text, "another event") }
    if let name = try taken(NameError.self, { try NodeName(text) }) { try promise(name.text == text, "another node") }
    if let address = try taken(NameError.self, { try EventAddress(text) }) {
      try promise(address.text == text, "another address")
    }
    if let target = try taken(NameError.self, { try Manifest.Target(text) }) {
      try promise(target.description == text, "another target")
    }
    if let duration = try taken(QuantityError.self, { try DurationText.parse(text) }) {
      let again = DurationText.format(duration)
      if duration.wholeNanoseconds % 1_000 == 0 {
        try promise(try DurationText.parse(again) == duration, "\(again) is not \(text)")
      }
    }
    if let count = try taken(QuantityError.self, { try ByteCountText.parse(text) }) {
      try promise(try ByteCountText.parse(ByteCountText.format(count)) == count, "another size than \(text)")
    }
  }

  static let manifest = FuzzTarget("manifest") {
    [
      """
      grape: 1
      name: flights
      description: "Counts \\u00e9"
      runtime: python
      entry: app.py
      partitions: 8
      slots:
        raw: {description: lines, emits: [parsed], optional: [audit@seen]}
        parsed:
      signals:
        counted: [stats@flight]
      include: ["*.py", "data/**"]
      exclude: [tmp/]
      config: {a: [1, 2.5, yes, ~], b: |
        text
        }
      profile:
        workers: {min: 1, max: 4}
        retry: {attempts: 3, backoff: 200ms}
      """,
      "grape: 1\nname: a\nruntime: executable\ncommand: [bin/run, -x]\nslots: &s {in: {}}\nother: *s\n",
      "grape: 1\nname: flights\nruntime: swift\nentry: Flights\nslots: {raw: {emits: [raw]}}\n",
    ].map { Array($0.utf8) }
  } body: { bytes in
    guard let manifest = try taken(ManifestError.self, { try Manifest(yaml: bytes.array) }) else { return }
    try promise(manifest.problems().isEmpty, "a manifest with problems is taken: \(manifest.problems())")
    let json = manifest.json
    try promise(try JSONValue(parsing: json.text) == json, "another manifest than was written")
    let topology = Topology([manifest])
    touch(ByteSlice("\(topology)").unsafeBytes)
  }

  static let profile = FuzzTarget("profile") {
    [
      """
      workers: {min: 0, max: 8}
      grow-threshold: 4
      credits: 2
      batch-bytes: 256KiB
      queue-limit: 1000
      idle-timeout: 1m
      request-timeout: 30s
      durability: os
      retry:
        attempts: 5
        backoff: 100ms
        max-backoff: 1h
      environment: {PATH: /usr/bin, X: "1"}
      """
    ].map { Array($0.utf8) }
  } body: { bytes in
    guard let profile = try taken(ManifestError.self, { try Profile(yaml: bytes.array) }) else { return }
    try promise(profile.problems().isEmpty, "a profile with problems is taken")
    let json = profile.json
    try promise(try JSONValue(parsing: json.text) == json, "another profile than was written")
  }

  /// A pattern and, behind a newline, a path that it is held against.
  static let glob = FuzzTarget("glob") {
    [
      "*.csv\na/b.csv", "a/**/b?[a-z!]/\na/x/bcd", "!\\*[!0-9]*\n*x1", "**/**/x\nx/x/x/x",
      "a*a*a*a*b\naaaaaaaaaaaaaaaaaaaa",
    ]
    .map { Array($0.utf8) }
  } body: { bytes in
    let parts = bytes.string.split(separator: "\n", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
    guard let pattern = try taken(GlobError.self, { try GlobPattern(parts[0]) }) else { return }
    guard parts.count == 2, !parts[1].isEmpty else { return }
    _ = pattern.matches(parts[1], isFolder: false)
    if pattern.matches(parts[1], isFolder: false) {
      try promise(pattern.matches(parts[1], isFolder: true), "fits a file and not a folder")
    }
  }
}
