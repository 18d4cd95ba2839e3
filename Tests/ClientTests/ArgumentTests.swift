import ArgumentParser
import Grape
import GrapeWire
import Testing

@testable import GrapeCLI

@Suite struct ArgumentTests {
  @Test(arguments: [
    ("250ms", Duration.milliseconds(250)), ("5s", .seconds(5)), ("1.5s", .milliseconds(1500)), ("2m", .seconds(120)),
    ("2min", .seconds(120)), ("1h", .seconds(3600)), ("3d", .seconds(259_200)), ("0", .zero), ("0s", .zero),
  ])
  func `durations have a number and a unit`(text: String, expected: Duration) throws {
    #expect(try parseDuration(text) == expected)
  }

  @Test(arguments: ["", "5", "s", "-5s", "5 s", "soon", "1e3s", ".5s", "5.s", "5S", "99999999999d"])
  func `anything else is no duration`(text: String) {
    #expect(throws: ValidationError.self) { try parseDuration(text) }
  }

  @Test func `a timeout is more than nothing`() {
    #expect(throws: ValidationError.self) { try parseTimeout("0s") }
  }

  @Test(arguments: [
    ("5000", 5000), ("20k", 20_000), ("2M", 2_000_000), ("1.5M", 1_500_000), ("8MiB", 8 << 20), ("64KiB", 65_536),
    ("1_000", 1000),
  ])
  func `counts may have a unit`(text: String, expected: Int) throws {
    #expect(try parseCount(text) == expected)
  }

  @Test(arguments: ["", "k", "-1", "5x", "1..2", "9999999G"])
  func `anything else is no count`(text: String) {
    #expect(throws: ValidationError.self) { try parseCount(text) }
  }

  @Test(arguments: [
    ("beginning", ReadPosition.beginning), ("end", .end), ("0", .offset(0)), ("1234", .offset(1234)),
    ("-5m", .ago(.seconds(300))),
    ("1970-01-01T00:00:01Z", .time(1000)), ("2013-01-31", .time(1_359_590_400_000)),
  ])
  func `positions are words, offsets, times and times ago`(text: String, expected: ReadPosition) throws {
    #expect(try ReadPosition.parse(text) == expected)
  }

  @Test(arguments: ["", "middle", "-5", "-0s", "5m", "2013-13-01", "2013-02-30", "2013-01-31T25:00"])
  func `anything else is no position`(text: String) {
    #expect(throws: ValidationError.self) { try ReadPosition.parse(text) }
  }

  @Test func `targets are app@event`() throws {
    #expect(try parseTarget("shop@order.new") == EventTarget(app: "shop", event: "order.new"))
    for text in [
      "shop", "@order", "shop@", "Shop@order", "shop@@order", "shop@or der", String(repeating: "a", count: 64) + "@b",
    ] {
      #expect(throws: ValidationError.self) { try parseTarget(text) }
    }
  }

  @Test func `headers are name=value, and those of Grape are refused`() throws {
    let header = try parseHeader("a=b=c")
    #expect(header.name == "a")
    #expect(header.value == ByteSlice("b=c"))
    #expect(try parseHeader("a=").value == ByteSlice([]))
    for text in ["a", "=b", "g.e=x"] { #expect(throws: ValidationError.self) { try parseHeader(text) } }
  }

  @Test func `data is text, a file or an escaped text`() throws {
    let file = try TemporaryFile([0, 255, 10])
    #expect(try readData("text", limit: 10) == ByteSlice("text"))
    #expect(try readData("@" + file.path, limit: 10).array == [0, 255, 10])
    #expect(try readData("@@home", limit: 10) == ByteSlice("@home"))
    let missing = #expect(throws: CommandFailure.self) { try readData("@/no/such/file", limit: 10) }
    #expect(missing?.exit == .noInput)
    let large = #expect(throws: CommandFailure.self) { try readData("@" + file.path, limit: 2) }
    #expect(large?.exit == .tooLarge)
    let folder = #expect(throws: CommandFailure.self) { try readData("@/tmp", limit: 2) }
    #expect(folder?.exit == .noInput)
  }

  @Test func `every command parses, and its help has examples`() throws {
    func check(_ command: any ParsableCommand.Type, _ path: [String]) {
      let help = GrapeCommand.helpMessage(for: command)
      #expect(help.contains("EXAMPLES"), "\(path.joined(separator: " "))")
      for subcommand in command.configuration.subcommands {
        check(subcommand, path + [subcommand._commandName])
      }
    }
    check(GrapeCommand.self, ["grape"])
  }

  @Test(arguments: [
    ["exec", "a@b", "--block", "--expiry", "5s"], ["exec"], ["exec", "a@b", "--header", "x"], ["ingest", "a@b"],
    ["ingest", "a@b", "-", "-"], ["ingest", "a@b", "-", "--resume"], ["ingest", "a@b", "x.txt", "--key-field", "k"],
    ["stats", "--watch", "--wait-idle"], ["stats", "--timeout", "5s"], ["tail", "a", "--from", "nowhere"],
    ["topology", "--format", "png"], ["log", "dump", "--partition", "1"], ["app", "logs", "a", "--lines", "0"],
    ["init", "x", "--runtime", "cobol"], ["bench", "drain"], ["serve", "--segment-size", "1k"],
    ["serve", "--log-level", "loud"],
    ["frobnicate"],
  ])
  func `a wrong command line is a usage error`(words: [String]) {
    let error = #expect(throws: (any Error).self) { _ = try GrapeCommand.parseAsRoot(words) }
    #expect(error.map { GrapeCommand.exitCode(for: $0).rawValue } == GrapeExit.usage.rawValue)
  }

  @Test(arguments: [
    ["tail", "a", "--from", "-5m"], ["tail", "a", "--no-follow", "--count", "3", "--dead"],
    ["log", "dump", "a.events"],
    ["ingest", "a@b", "x.csv", "y.csv", "--key-field", "k"], ["ingest", "a@b", "-", "--state", "s"],
    ["bench", "ingest", "a@b", "--records", "5", "--value-bytes", "1k"],
    ["bench", "call", "a@b", "--calls", "9", "--in-flight", "3"],
  ])
  func `a right command line is taken`(words: [String]) throws {
    _ = try GrapeCommand.parseAsRoot(words)
  }
}
