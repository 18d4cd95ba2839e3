import GrapeCore
import Testing

@testable import GrapePackages

/// The problems of a manifest, one a line; empty if it is good.
func problems(_ yaml: String, profile: String? = nil) -> String {
  do throws(ManifestError) {
    _ = try Manifest(yaml: Array(yaml.utf8), profileYAML: profile.map { Array($0.utf8) })
    return ""
  } catch {
    return error.description
  }
}

/// A good manifest to spoil.
let head = "grape: 1\nname: flights\nruntime: python\nentry: app.py\n"

struct Case: Sendable, CustomTestStringConvertible {
  var yaml: String
  var expected: String
  init(_ yaml: String, _ expected: String) {
    self.yaml = yaml
    self.expected = expected
  }
  var testDescription: String { expected }
}

@Suite struct ManifestTests {
  @Test func everyFieldIsRead() throws {
    let manifest = try Manifest(
      yaml: """
        grape: 1
        name: flights
        description: Parses flights.
        runtime: executable
        command: [./bin/stats, --fast, "5"]
        partitions: 8
        slots:
          raw:
            description: Lines of CSV.
            emits: [parsed, stats@flight]
          parsed: {emits: [enriched], optional: [audit@seen]}
          ranking:
        signals:
          enriched: [stats@flight, ranking]
          counted:
            description: Counts.
            slots: [raw]
            optional: [audit@seen]
        include: [bin, "*.py"]
        exclude: ["*.csv"]
        config: {limit: 5, ratio: 0.5, on: yes, off: no, nested: [true, null, "1", {a: ~}], hex: 0x1F, when: 2013-01-01}
        profile:
          workers: {min: 1, max: 3}
          durability: os
        """)
    #expect(manifest.name.text == "flights")
    #expect(manifest.description == "Parses flights.")
    #expect(manifest.runtime == .executable(command: ["./bin/stats", "--fast", "5"]))
    #expect(manifest.runtime.file == "bin/stats")
    #expect(manifest.partitions == 8)
    #expect(manifest.slots.map(\.name.text) == ["raw", "parsed", "ranking"])
    #expect(manifest.slots[0].description == "Lines of CSV.")
    #expect(manifest.slots[0].emits.map(\.description) == ["parsed", "stats@flight"])
    #expect(manifest.slots[1].optional.map(\.description) == ["audit@seen"])
    #expect(manifest.signals.map(\.name.text) == ["enriched", "counted"])
    #expect(manifest.signals[0].slots.map(\.description) == ["stats@flight", "ranking"])
    #expect(manifest.signals[1].optional.map(\.description) == ["audit@seen"])
    #expect(manifest.include == ["bin", "*.py"])
    #expect(manifest.exclude == ["*.csv"])
    #expect(
      manifest.config.text
        == #"{"limit":5,"ratio":0.5,"on":"yes","off":"no","nested":[true,null,"1",{"a":null}],"hex":31,"when":"2013-01-01"}"#
    )
    #expect(manifest.profile.workers == Profile.Workers(min: 1, max: 3))
    #expect(manifest.profile.durability == .os)
    #expect(
      manifest.warnings() == [
        "signals.counted: no slot of flights emits it; name it in the \"emits\" of the slots that do"
      ])
  }

  @Test func theLeastManifestHasTheDefaults() throws {
    let manifest = try Manifest(yaml: head + "slots: {raw: {}}\n")
    #expect(manifest.partitions == 4)
    #expect(manifest.runtime == .python(entry: "app.py"))
    #expect(manifest.profile == Profile())
    #expect(manifest.config == .object([]))
    #expect(manifest.warnings().isEmpty)
  }

  @Test(arguments: [
    Case("", "grape.yaml:1:1: the manifest is empty: write a mapping that begins with \"grape: 1\""),
    Case("# nothing\n", "grape.yaml:1:1: the manifest is empty: write a mapping that begins with \"grape: 1\""),
    Case("- a\n", "grape.yaml:1:1: the manifest is a list: write a mapping that begins with \"grape: 1\""),
    Case("hello", "grape.yaml:1:1: the manifest is a single value: write a mapping that begins with \"grape: 1\""),
    Case(
      "slots: {raw: }\n",
      """
      grape.yaml:1:1: the field "grape" (version of the format) is missing: begin the file with "grape: 1"
      grape.yaml:1:1: the field "name" is missing: name the application, for instance "name: flights"
      grape.yaml:1:1: the field "runtime" is missing: write one of python, swift, executable
      """),
    Case(
      "grape: 2\nname: Flights!\nruntime: pyton\nentry: a.py\nslots: {raw: {}}",
      """
      grape.yaml:1:8: grape: format version 2 is not known here: this grape reads version 1
      grape.yaml:2:7: name: application name "Flights!": it must begin with a lower-case letter, not "F", for instance flights
      grape.yaml:3:10: runtime: "pyton" is no runtime: did you mean "python"?
      """),
    Case(
      head + "slotz: {raw: {}}\n",
      """
      grape.yaml:1:1: the field "slots" is missing: write for instance "slots: {raw: {}}"
      grape.yaml:5:1: unknown field "slotz": did you mean "slots"?
      """),
    Case(
      head + "slots: {}\n",
      "grape.yaml:5:1: slots: is empty: an application has at least one slot, for instance \"raw: {}\""),
    Case(
      head + "slots: raw\n",
      "grape.yaml:5:8: slots: is a single value: write a mapping, for instance \"raw: {emits: [parsed]}\""),
    Case(
      head + "slots: [raw]\n",
      "grape.yaml:5:8: slots: is a list: write a mapping, for instance \"raw: {emits: [parsed]}\""),
    Case(
      head + "slots:\n  raw:\n    emits: [parset, stats@flight]\n  parsed: {}\n",
      "grape.yaml:7:13: slots.raw.emits[0]: parset is neither a slot nor a signal of flights: did you mean \"parsed\"? (a slot of another application is written APPLICATION@EVENT)"
    ),
    Case(
      head + "slots:\n  raw:\n    emits: [stats@, \"x@y@z\", {a: 1}, parset]\n  parsed: {}\n",
      """
      grape.yaml:7:13: slots.raw.emits[0]: event address "stats@": the event name is empty: write a name such as parsed
      grape.yaml:7:21: slots.raw.emits[1]: event address "x@y@z": event name "y@z": "@" at character 2 is not allowed: use lower-case letters, digits, "-", "_" and ".", for instance y-z
      grape.yaml:7:30: slots.raw.emits[2]: is a mapping: write a text, for instance parsed, stats@flight
      grape.yaml:7:38: slots.raw.emits[3]: parset is neither a slot nor a signal of flights: did you mean "parsed"? (a slot of another application is written APPLICATION@EVENT)
      """),
    Case(
      head + "slots:\n  raw: {emits: [flights@gone, raw, raw]}\n",
      """
      grape.yaml:6:17: slots.raw.emits[0]: gone is neither a slot nor a signal of flights: there is raw (a slot of another application is written APPLICATION@EVENT)
      grape.yaml:6:36: slots.raw.emits[2]: raw is named twice: once is enough
      """),
    Case(
      head + "slots:\n  raw: {emits: [raw]}\nsignals:\n  raw: [raw]\n  done: [gone, done]\n",
      """
      grape.yaml:8:3: signals.raw: raw is a slot too, so that emitting it would be ambiguous: rename one of them
      grape.yaml:9:10: signals.done[0]: gone is no slot of flights: there is raw (a slot of another application is written APPLICATION@EVENT)
      grape.yaml:9:16: signals.done[1]: done is a signal: a signal can be connected to slots only
      """),
    Case(
      head + "slots: {raw: {emits: parsed, emit: [x]}}\n",
      """
      grape.yaml:5:22: slots.raw.emits: is "parsed": write a list, for instance [parsed, stats@flight]
      grape.yaml:5:30: slots.raw: unknown field "emit": use emits
      """),
    Case(
      head + "slots: {Raw: {}}\n",
      "grape.yaml:5:9: slots: event name \"Raw\": it must begin with a lower-case letter, not \"R\", for instance raw"),
    Case(
      head + "slots: {raw: {}}\npartitions: many\n",
      "grape.yaml:6:13: partitions: is \"many\": write a whole number, for instance 4"),
    Case(
      head + "slots: {raw: {}}\npartitions: \"4\"\n",
      "grape.yaml:6:13: partitions: is \"4\": write a whole number, for instance 4"),
    Case(head + "slots: {raw: {}}\npartitions: 0\n", "grape.yaml:6:13: partitions: 0 is out of range: use 1 to 1024"),
    Case(
      head + "slots: {raw: {}}\npartitions: 1025\n", "grape.yaml:6:13: partitions: 1025 is out of range: use 1 to 1024"),
    Case(
      head + "slots: {raw: {}}\nconfig: 5\n",
      "grape.yaml:6:9: config: is a single value: write a mapping, for instance \"threshold: 5\""),
    Case(
      head + "slots: {raw: {}}\nconfig: {a: .inf}\n",
      "grape.yaml:6:13: config.a: .inf is a number that JSON cannot hold: write a finite one, or put it in quotes"),
    Case(
      head + "slots: {raw: {}}\nname: x\n",
      "grape.yaml:6:1: the key \"name\" is there twice in one mapping: remove one of them"),
    Case(head + "slots: {raw: {}}\n\tx: 1\n", "grape.yaml:6:1: a tab cannot indent: use spaces"),
    Case(
      head + "slots: {raw: {}\n",
      "grape.yaml:6:1: not YAML: did not find expected ',' or '}' while parsing a flow mapping"),
    Case(
      head + "slots: &a {raw: {}}\n",
      "grape.yaml:5:8: anchors (&name) and aliases (*name) are not read here: write the value out"),
    Case(head + "slots: !x {raw: {}}\n", "grape.yaml:5:8: the tag \"!x\" is not read here: leave it out"),
    Case(head + "slots: {[a]: {}}\n", "grape.yaml:5:9: a key must be a single value, not a list"),
    Case(
      head + "slots: {raw: {}}\n---\na: 1\n",
      "grape.yaml:6:1: a second document begins here: one file holds one document"),
    Case(
      head + "slots: {raw: {}}\nconfig: {a: \u{1}}\n",
      "grape.yaml:6:13: a control character is not allowed here: remove it"),
    Case(
      "grape: 1\nname: f\nruntime: swift\ncommand: [x]\nslots: {raw: {}}\n",
      """
      grape.yaml:3:10: runtime swift needs the field "entry", for instance "entry: MyApp"
      grape.yaml:4:1: command: does not belong to runtime swift: use "entry"
      """),
    Case(
      "grape: 1\nname: f\nruntime: swift\nentry: bin/F\nslots: {raw: {}}\n",
      "grape.yaml:4:8: entry: \"bin/F\" is a path: name the executable product of Package.swift, whose binary is then bin/PRODUCT"
    ),
    Case(
      "grape: 1\nname: f\nruntime: python\nentry: app.sh\nslots: {raw: {}}\n",
      "grape.yaml:4:8: entry: \"app.sh\" is no Python script: name a file that ends in .py"),
    Case(
      "grape: 1\nname: f\nruntime: python\nentry: ../app.py\nslots: {raw: {}}\n",
      "grape.yaml:4:8: entry: \"../app.py\" has the part \"..\", which could lead out of the package"),
    Case(
      "grape: 1\nname: f\nruntime: executable\ncommand: []\nslots: {raw: {}}\n",
      "grape.yaml:4:1: command: is empty: write the program and its arguments, for instance [./bin/stats, --fast]"),
    Case(
      "grape: 1\nname: f\nruntime: executable\ncommand: [/bin/sh]\nslots: {raw: {}}\n",
      "grape.yaml:4:11: command[0]: \"/bin/sh\" is an absolute path: name a file of the package (./bin/stats) or a program on PATH"
    ),
    Case(
      head + "slots: {raw: {}}\nexclude: [\"a//b\", \"[\", ok]\n",
      """
      grape.yaml:6:11: exclude[0]: "a//b" has an empty part between slashes
      grape.yaml:6:19: exclude[1]: "[" has a "[" without its "]", or an empty or backward range between them
      """),
    Case(
      head + "slots: {raw: {}}\nworkers: {max: 3}\n", "grape.yaml:6:1: unknown field \"workers\": use profile.workers"),
    Case(
      head + "slots: {raw: {}}\nprofile: {workers: {min: 5, max: 2}, idle-timeout: 5}\n",
      """
      grape.yaml:6:26: profile.workers.min: 5 is more than workers.max, which is 2
      grape.yaml:6:52: profile.idle-timeout: "5" has no unit: use us, ms, s, m, h or d, for instance 5s
      """),
    Case(
      head + "slots: {raw: {}}\nxyzzy: 1\n",
      "grape.yaml:6:1: unknown field \"xyzzy\": known are grape, name, description, runtime, entry, command, partitions, slots, signals, sources, include, exclude, config, profile"
    ),
  ])
  func badManifestsSayWhatIsWrongAndWhere(_ example: Case) {
    #expect(problems(example.yaml) == example.expected)
  }

  @Test func aProfileOfItsOwnIsCheckedWithItsOwnPlaces() {
    let good = head + "slots: {raw: {}}\n"
    #expect(problems(good, profile: "") == "")
    #expect(
      problems(good, profile: "workers: {max: 0}\n")
        == "profile.yaml:1:16: workers.max: 0 is out of range: use 1 to 1000")
    #expect(
      problems(good + "profile: {}\n", profile: "credits: 0")
        == """
        grape.yaml:6:1: profile: is given twice, here and in profile.yaml: keep one of them
        profile.yaml:1:10: credits: 0 is out of range: use 1 to 256
        """)
  }

  @Test func encodingIsChecked() {
    let bytes = Array("grape: 1\nname: fl".utf8) + [0xff] + Array("x\n".utf8)
    #expect(
      throws: ManifestError([
        SourceProblem(
          file: "grape.yaml", mark: SourceMark(line: 2, column: 9),
          message: "the file is not UTF-8 here: save it in that encoding")
      ])
    ) { try Manifest(yaml: bytes) }
  }

  @Test func hugeDeepAndExplodingFilesAreRefusedQuickly() {
    #expect(
      problems(String(repeating: "#\n", count: 600_000))
        == "grape.yaml:1:1: the file has 1200000 bytes: at most 1MiB are read")
    #expect(problems(String(repeating: "[", count: 1_000_000)).hasSuffix("nested deeper than 64 levels"))
    #expect(problems(String(repeating: "- ", count: 100_000)).hasSuffix("nested deeper than 64 levels"))
    #expect(
      problems("grape: " + String(repeating: "[", count: 80) + String(repeating: "]", count: 80)).hasSuffix(
        "nested deeper than 64 levels"))
    var bomb = "a0: &a0 [x, x]\n"
    for level in 1..<60 { bomb += "a\(level): &a\(level) {? [*a\(level - 1), *a\(level - 1)] : 1}\n" }
    #expect(problems(bomb).contains("aliases (*name) are not read here"))
  }

  @Test func randomDamageGivesErrorsOnly() {
    let seed = UInt64.random(in: 0 ... .max)
    print("seed \(seed)")
    var random = SplitMix(seed)
    let good = Array(
      (head
        + "slots:\n  raw: {emits: [parsed, \"a@b\"]}\n  parsed:\nsignals:\n  x: [raw]\nprofile: {workers: {min: 1}}\n")
        .utf8)
    for _ in 0..<2000 {
      var bytes = good
      for _ in 0...Int.random(in: 0..<4, using: &random) {
        let place = Int.random(in: 0..<bytes.count, using: &random)
        switch Int.random(in: 0..<3, using: &random) {
        case 0: bytes[place] = UInt8.random(in: 0...255, using: &random)
        case 1: bytes.remove(at: place)
        default:
          bytes.insert(
            contentsOf: "[]{}:-&*!?\"' \n#|>".utf8.randomElement(using: &random).map { [$0] } ?? [], at: place)
        }
      }
      do throws(ManifestError) {
        _ = try Manifest(yaml: bytes)
      } catch {
        #expect(!error.problems.isEmpty)
        #expect(error.problems.allSatisfy { $0.mark.line >= 1 && $0.mark.column >= 1 && !$0.message.isEmpty })
      }
    }
  }
}

/// A small generator with a seed.
struct SplitMix: RandomNumberGenerator {
  private var state: UInt64
  init(_ seed: UInt64) { state = seed }
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}
