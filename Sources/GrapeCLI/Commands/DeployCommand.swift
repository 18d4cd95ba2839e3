import ArgumentParser
import Crypto
import Glibc
import Grape
import GrapeCore
import GrapePackages
import GrapeWire

/// `grape deploy`
struct DeployCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "deploy",
    abstract: "Deploy an application from its folder or from an archive.",
    discussion: """
      The manifest is checked here, before anything is sent: errors name file, line, field and what would be right. A
      folder of a Swift package is built first (swift build -c release --product PRODUCT); the binary travels as
      bin/PRODUCT. The version is a hash of the content: deploying the same content again changes nothing.

      EXAMPLES
        grape deploy my-app
        grape deploy my-app-1.tar.zst --json
        grape deploy my-swift-app --no-build
      """)

  @Argument(help: ArgumentHelp("A folder with grape.yaml, or a tar archive (plain, gzip or zstd).", valueName: "path"))
  var path: String

  @Flag(inversion: .prefixedNo, help: "Build a Swift application before packing it.")
  var build = true

  @Flag(inversion: .prefixedNo, help: "Link Swift's libraries into the binary: the node needs no Swift then.")
  var staticSwiftStdlib = true

  @OptionGroup var options: NodeOptions

  func run() throws {
    try reporting(json: options.json) {
      let archive = try pack()
      let node = try options.connect()
      let answer = try PackageUpload(node).deploy(archive)
      if options.json { return Output.line(answer.text) }
      for line in report(answer) { Output.line(line) }
    }
  }

  /// The archive's bytes, checked.
  private func pack() throws -> [UInt8] {
    var status = stat()
    guard stat(path, &status) == 0 else { throw FileContent.unreadable(path) }
    guard status.st_mode & S_IFMT == S_IFDIR else {
      let bytes = try FileContent.read(path: path, limit: Int(PackageLimits().unpackedBytes)).array
      _ = try Package.load(archive: bytes)
      return bytes
    }
    let manifest = try Package.load(folder: path, requiringEntry: false).manifest
    var adding: [String: String] = [:]
    if case .swift(let product) = manifest.runtime {
      let swift = SwiftBuild(folder: path, product: product, isStatic: staticSwiftStdlib)
      if let binary = try swift.binary(building: build) { adding["bin/\(product)"] = binary }
    }
    return try PackageArchive.make(folder: path, adding: adding).archive
  }

  private func report(_ answer: JSONValue) -> [String] {
    let app = answer["app"]?.string ?? ""
    let version = short(answer["version"]?.string)
    var lines: [String] = []
    if answer["changed"]?.bool == false {
      lines.append("\(app) is unchanged, version \(version)")
    } else if let previous = answer["previous"]?.string {
      lines.append("deployed \(app), version \(version), in place of \(short(previous))")
    } else {
      lines.append("deployed \(app), version \(version)")
    }
    lines += (answer["warnings"]?.array ?? []).compactMap { $0.string }.map { "warning: \($0)" }
    for cycle in answer["cycles"]?.array ?? [] {
      let names = (cycle.array ?? []).compactMap { $0.string }
      lines.append("loop: \((names + names.prefix(1)).joined(separator: " → "))")
    }
    return lines
  }
}

/// Sends an archive in pieces, and has it deployed.
struct PackageUpload {
  private static let chunkBytes = 1 << 20
  private let node: NodeConnection

  init(_ node: NodeConnection) { self.node = node }

  func deploy(_ archive: [UInt8]) throws -> JSONValue {
    let digest = SHA256.hash(data: archive).map { $0 < 16 ? "0" + String($0, radix: 16) : String($0, radix: 16) }
      .joined()
    let begun = try node.ask("deploy.begin", [("bytes", JSONValue(archive.count)), ("sha256", .string(digest))])
    guard let upload = begun["upload"] else {
      throw CommandFailure(.internal, "the node's deploy.begin names no upload")
    }
    var offset = 0
    while offset < archive.count {
      let end = min(offset + Self.chunkBytes, archive.count)
      _ = try node.request(
        "deploy.chunk", [.init("upload", upload), .init("offset", JSONValue(offset))],
        blob: ByteSlice(Array(archive[offset..<end])))
      offset = end
    }
    // The answer waits for old workers to finish what they hold.
    return try node.ask("deploy.finish", [("upload", upload)], timeout: .seconds(180))
  }
}
