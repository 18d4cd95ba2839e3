import Foundation
import GrapeCore
import GrapePackages
import Testing

@Suite struct TemplateTests {
  private static let sdk = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
    .appendingPathComponent("../../Sources/CGrapeResources/sdk/python/grape.py")

  @Test func thePythonProjectIsAPackageAndPassesItsTests() throws {
    let scratch = try Scratch()
    let sdk = Array(try Data(contentsOf: Self.sdk))
    try ProjectTemplate.python(sdk: sdk).write(name: try AppName("my-app"), to: scratch.path + "/my-app")
    let package = try Package.load(folder: scratch.path + "/my-app")
    #expect(package.manifest.name.text == "my-app")
    #expect(package.manifest.slots.map(\.name.text) == ["received", "greeted"])
    #expect(package.manifest.warnings().isEmpty)
    #expect(package.files.map(\.path) == ["app.py", "grape.yaml"], "neither the SDK's copy nor tests")
    let output = try scratch.shell("cd my-app; PYTHONDONTWRITEBYTECODE=1 python3 -m unittest -v 2>&1")
    #expect(output.contains("Ran 3 tests") && output.contains("OK"))
  }

  @Test(arguments: ["my-app", "grape", "class"])
  func theSwiftProjectIsAPackage(_ name: String) throws {
    let scratch = try Scratch()
    try ProjectTemplate.swift(grape: .url("https://example.org/some/grape.git", .init("main"))).write(
      name: try AppName(name), to: scratch.path + "/app")
    let package = try Package.load(folder: scratch.path + "/app", requiringEntry: false)
    let product = name == "my-app" ? name : name + "-app"
    #expect(package.manifest.runtime == .swift(product: product))
    #expect(package.files.map(\.path) == ["grape.yaml"])
    let text = String(decoding: try scratch.bytes("app/Package.swift"), as: UTF8.self)
    #expect(text.contains(".package(url: \"https://example.org/some/grape.git\", branch: \"main\")"))
    #expect(text.contains(".product(name: \"Grape\", package: \"grape\")"))
    let test = String(decoding: try scratch.bytes("app/Tests/\(product)-tests/GreetingTests.swift"), as: UTF8.self)
    #expect(test.contains("@testable import \(product.replacing("-", with: "_"))\n"))
  }

  @Test func aRepositoryIsPinnedByVersionCommitOrBranch() throws {
    let commit = String(repeating: "0a", count: 20)
    for (text, expected) in [
      ("1.2.3", "exact: \"1.2.3\""), (commit, "revision: \"\(commit)\""), ("1.2", "branch: \"1.2\""),
    ] {
      let template = ProjectTemplate.swift(grape: .url("ssh://git@host/grape", .init(text)))
      let manifest = template.files(name: try AppName("a")).first { $0.path == "Package.swift" }
      let text = String(decoding: manifest?.contents ?? [], as: UTF8.self)
      #expect(text.contains(expected))
    }
  }

  @Test func anEmbeddedSDKIsAPartOfTheProjectButNotOfWhatIsDeployed() throws {
    let scratch = try Scratch()
    let sdk = [ProjectFile("Package.swift", Array("// sdk".utf8)), ProjectFile("Sources/Grape/A.swift", [])]
    try ProjectTemplate.swift(grape: .embedded(sdk)).write(name: try AppName("my-app"), to: scratch.path + "/app")
    #expect(String(decoding: try scratch.bytes("app/vendor/grape/Package.swift"), as: UTF8.self) == "// sdk")
    let manifest = String(decoding: try scratch.bytes("app/Package.swift"), as: UTF8.self)
    #expect(manifest.contains(".package(path: \"vendor/grape\")"))
    let package = try Package.load(folder: scratch.path + "/app", requiringEntry: false)
    #expect(package.files.map(\.path) == ["grape.yaml"])
  }

  @Test func nothingIsOverwritten() throws {
    let scratch = try Scratch()
    try scratch.write("app/precious", "x")
    #expect(throws: PackageError.self) {
      try ProjectTemplate.python(sdk: []).write(name: try AppName("a"), to: scratch.path + "/app")
    }
    #expect(throws: PackageError.self) {
      try ProjectTemplate.python(sdk: []).write(name: try AppName("a"), to: scratch.path + "/app/precious")
    }
    #expect(try scratch.shell("ls -A app") == "precious\n")
    try scratch.shell("mkdir hollow")
    try ProjectTemplate.python(sdk: []).write(name: try AppName("a"), to: scratch.path + "/hollow")
  }

  @Test func theExamplesOfTheRepositoryAreSound() throws {
    let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("../../Examples")
      .standardizedFileURL.path
    var manifests: [Manifest] = []
    for name in ["flights/flights", "flights/stats", "signal-slot"] {
      manifests.append(try Package.load(folder: root + "/" + name, requiringEntry: false).manifest)
    }
    #expect(try Topology().deploying(manifests).cycles.isEmpty)
    #expect(manifests.flatMap { $0.warnings() }.isEmpty)
  }
}
