import Foundation
import GrapePackages
import Testing

@Suite struct HostileArchiveTests {
  /// A good archive with one more entry.
  private func with(_ change: (inout TarBuilder) -> Void) -> String {
    var tar = TarBuilder.good
    change(&tar)
    return refusal(tar.finished)
  }

  @Test func theGoodOneIsTaken() { #expect(with { _ in } == "") }

  @Test func pathsThatLeadOutAreRefused() {
    #expect(
      with { $0.add("/etc/passwd") }
        == "unsafePath: the archive is refused: the path \"/etc/passwd\" is an absolute path: paths in a package are relative to its folder"
    )
    #expect(
      with { $0.add("../x") }
        == "unsafePath: the archive is refused: the path \"../x\" has the part \"..\", which could lead out of the package"
    )
    #expect(with { $0.add("a/../../x") }.hasPrefix("unsafePath:"))
    #expect(with { $0.add("a/..", type: "5") }.hasPrefix("unsafePath:"))
    #expect(with { $0.add("./../x") }.hasPrefix("unsafePath:"))
    #expect(with { $0.add("a//x") }.hasPrefix("unsafePath:"))
    #expect(with { $0.add("") }.hasPrefix("unsafePath:"))
    #expect(with { $0.add("a\u{1b}[2J") }.hasPrefix("unsafePath:"))
    #expect(
      with {
        $0.pax([("path", "../x")]); $0.add("innocent")
      }.hasPrefix("unsafePath:"))
    #expect(
      with {
        $0.add("L", type: "L", data: "../x\u{0}"); $0.add("innocent")
      }.hasPrefix("unsafePath:"))
    #expect(with { $0.add("x", prefix: "..") }.hasPrefix("unsafePath:"))
    #expect(
      with {
        $0.pax([("path", "x\u{0}y")]); $0.add("innocent")
      }.hasPrefix("unsafePath:"))
  }

  @Test func linksStayInside() {
    #expect(with { $0.add("d/l", type: "2", link: "../app.py") } == "")
    #expect(with { $0.add("l", type: "2", link: "app.py") } == "")
    #expect(
      with { $0.add("l", type: "2", link: "/etc/passwd") }
        == "unsafePath: the archive is refused: \"l\" is a link to \"/etc/passwd\", an absolute path: links must be relative and stay in the package"
    )
    #expect(
      with { $0.add("d/l", type: "2", link: "../../x") }
        == "unsafePath: the archive is refused: \"d/l\" is a link to \"../../x\", which leads out of the package")
    // Each is harmless for itself; together they would lead out.
    #expect(
      with {
        $0.add("a/b/s", type: "2", link: "../../d"); $0.add("e", type: "2", link: "a/b/s/../..")
      }
        == "unsafePath: the archive is refused: \"e\" is a link to \"a/b/s/../..\", which has \"..\" after a name: where that leads cannot be told"
    )
    #expect(
      with {
        $0.add("l", type: "2", link: "d"); $0.add("l/x", data: "x")
      } == "unsafePath: the archive is refused: \"l/x\" lies in \"l\", which is no folder")
    #expect(
      with {
        $0.add("l/x", data: "x"); $0.add("l", type: "2", link: "d")
      } == "unsafePath: the archive is refused: \"l\" is there as a folder and as a file")
    #expect(with { $0.add("l", type: "2", link: "") }.hasPrefix("unsafePath:"))
    #expect(
      with {
        $0.pax([("linkpath", "/etc")]); $0.add("l", type: "2", link: "x")
      }.hasPrefix("unsafePath:"))
  }

  @Test func aLinkOutOfTheTopFolderIsRefusedThoughItStaysInTheArchive() {
    var tar = TarBuilder()
    tar.add("top/grape.yaml", data: TarBuilder.manifest)
    tar.add("top/app.py")
    tar.add("top/l", type: "2", link: "../x")
    #expect(
      refusal(tar.finished)
        == "unsafePath: the archive is refused: \"l\" is a link to \"../x\", which leads out of the package")
  }

  @Test func whatIsNoFileIsRefused() {
    #expect(
      with { $0.add("l", type: "1", link: "app.py") }
        == "unsupported: the archive is refused: \"l\" is a hard link, which packages cannot hold")
    #expect(
      with { $0.add("l", type: "3") }
        == "unsupported: the archive is refused: \"l\" is a device, which packages cannot hold")
    #expect(with { $0.add("l", type: "4") }.contains("is a device"))
    #expect(with { $0.add("l", type: "6") }.contains("is a named pipe"))
    #expect(with { $0.add("l", type: "S") }.contains("is a sparse file"))
    #expect(with { $0.add("l", type: "Z") }.contains("is an entry of the unknown type \"Z\""))
    #expect(
      with {
        $0.pax([("GNU.sparse.major", "1")]); $0.add("l")
      }.contains("sparse"))
    #expect(with { $0.add("d", type: "5", data: "x") }.contains("is no file and yet has data"))
  }

  @Test func nothingIsThereTwice() {
    #expect(with { $0.add("app.py", data: "other") } == "unsafePath: the archive is refused: \"app.py\" is there twice")
    #expect(
      with { $0.add("./app.py", data: "other") } == "unsafePath: the archive is refused: \"app.py\" is there twice")
    #expect(
      with { $0.add("app.py/x", data: "other") }
        == "unsafePath: the archive is refused: \"app.py/x\" lies in \"app.py\", which is no folder")
    #expect(
      with {
        $0.add("d", type: "5"); $0.add("d/", type: "5"); $0.add("d/x")
      } == "")
    #expect(
      with {
        $0.add("d/", data: ""); $0.add("d/x")
      } == "")
  }

  @Test func sizesAndNumbersAreBounded() {
    var limits = PackageLimits()
    limits.unpackedBytes = 1000
    var tar = TarBuilder.good
    tar.add("big", size: "77777777777")
    #expect(
      refusal(tar.finished, limits: limits)
        == "tooLarge: the archive's files have more than 1000 together with \"big\", the most a package may hold")
    limits = PackageLimits()
    limits.files = 2
    tar = TarBuilder.good
    tar.add("one-more")
    #expect(
      refusal(tar.finished, limits: limits)
        == "tooLarge: the archive holds more than 2 files, the most a package may hold")
    tar = TarBuilder.good
    for number in 0..<10 { tar.add("d\(number)", type: "5") }
    #expect(refusal(tar.finished, limits: limits) == "tooLarge: the archive has more than 8 entries")
    #expect(with { $0.add(String(repeating: "d/", count: 40) + "x") }.contains("lies in more than 32 folders"))
    #expect(
      with {
        $0.pax([("path", String(repeating: "a", count: 300))]); $0.add("x")
      }.contains("has a part of 300 bytes"))
    #expect(
      with {
        $0.pax([("path", String(repeating: "abc/", count: 500))]); $0.add("x")
      }.contains("a path may have at most 1024"))
    #expect(
      with {
        $0.pax([("comment", String(repeating: "a", count: 70_000))]); $0.add("x")
      }.contains("at most 65536 are read"))
  }

  @Test func bombsAreStoppedWhileTheyUnpack() throws {
    let scratch = try Scratch()
    try scratch.write("grape.yaml", TarBuilder.manifest)
    try scratch.write("app.py", "")
    try scratch.shell(
      "truncate -s 200M zeros; tar czf bomb.tgz grape.yaml app.py zeros; tar cf - grape.yaml app.py zeros | zstd -q -o bomb.tar.zst; rm zeros"
    )
    for name in ["bomb.tgz", "bomb.tar.zst"] {
      #expect(
        refusal(try scratch.bytes(name))
          == "tooLarge: the archive unpacks to more than 250 times its size, as only a bomb does")
    }
    try scratch.shell("truncate -s 300M zeros; tar cf big.tar grape.yaml app.py zeros; rm zeros")
    #expect(throws: PackageError.self) { try Package.load(archive: scratch.path + "/big.tar") }
  }

  @Test func damageIsFound() throws {
    let good = TarBuilder.good.finished
    #expect(refusal([]) == "notAnArchive: the archive is empty")
    #expect(
      refusal(Array("hello".utf8))
        == "notAnArchive: this is no tar archive, neither plain nor compressed with gzip or zstd")
    #expect(
      refusal(Array(repeating: 0x41, count: 5000))
        == "notAnArchive: this is no tar archive, neither plain nor compressed with gzip or zstd")
    #expect(
      refusal(Array("PK\u{3}\u{4}".utf8))
        == "notAnArchive: the archive is a zip file: pack it as .tar, .tar.gz or .tar.zst")
    #expect(
      refusal([UInt8](repeating: 0, count: 1024))
        == "noManifest: the archive holds no grape.yaml, neither at its root nor in a single folder at its root")
    for count in stride(from: 1, to: good.count - 1024, by: 100) {
      #expect(refusal(Array(good.prefix(count))) != "", "cut off at \(count)")
    }
    #expect(
      with { $0.add("x", damage: true) }
        == "damaged: entry 3 of the archive has a wrong checksum: the archive is damaged")
    #expect(
      with { $0.add("x", size: "9999") }
        == "damaged: entry 3 of the archive has a size or mode that is no number: the archive is damaged")
    #expect(refusal(good + [1]) == "damaged: something follows the end of the archive")
    #expect(
      with {
        $0.add("pax", type: "x", data: "999 path=x\n"); $0.add("x")
      } == "damaged: an extended header of the archive is damaged")
    #expect(
      with {
        $0.add("pax", type: "g", data: "9 path=x\n"); $0.add("x")
      } == "unsupported: the archive sets one path or size for all its files")

    let scratch = try Scratch()
    try scratch.application()
    try scratch.shell("tar czf a.tgz app; tar cf - app | zstd -q -o a.tar.zst")
    for name in ["a.tgz", "a.tar.zst"] {
      let bytes = try scratch.bytes(name)
      #expect(refusal(bytes) == "")
      #expect(refusal(Array(bytes.dropLast(5))).contains("is cut off"), "\(name)")
      #expect(refusal(bytes + [1, 2, 3]).hasPrefix("damaged:"), "\(name)")
      // Some changes to compressed data leave the content as it was; no other may pass.
      let version = try Package.load(archive: bytes).version
      for place in bytes.indices {
        var broken = bytes
        broken[place] ^= 0x40
        let package = try? Package.load(archive: broken)
        #expect(package == nil || package?.version == version, "\(name) at \(place)")
      }
      var broken = bytes
      broken[bytes.count - (name == "a.tgz" ? 6 : 2)] ^= 1
      #expect(refusal(broken).hasPrefix("damaged:"), "\(name): the checksum")
    }
  }

  @Test func randomArchivesGiveErrorsOnly() throws {
    let seed = UInt64.random(in: 0 ... .max)
    print("seed \(seed)")
    var random = SplitMix(seed)
    let scratch = try Scratch()
    try scratch.application()
    try scratch.shell("tar --format=pax -cf a.tar app; gzip -k a.tar; zstd -q a.tar")
    let good = [
      TarBuilder.good.finished, try scratch.bytes("a.tar"), try scratch.bytes("a.tar.gz"),
      try scratch.bytes("a.tar.zst"),
    ]
    for round in 0..<3000 {
      var bytes = good[round % good.count]
      for _ in 0...Int.random(in: 0..<5, using: &random) {
        let place = Int.random(in: 0..<bytes.count, using: &random)
        switch Int.random(in: 0..<4, using: &random) {
        case 0: bytes[place] = UInt8.random(in: 0...255, using: &random)
        case 1: bytes.removeLast(Int.random(in: 0..<bytes.count, using: &random) / 4)
        case 2:
          bytes.replaceSubrange(
            place..<min(bytes.count, place + 8), with: [0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])
        default: Self.repair(&bytes, place)
        }
      }
      do throws(PackageError) {
        _ = try Package.load(archive: bytes)
      } catch {
        #expect(!error.message.isEmpty)
      }
    }
  }

  /// Changes a byte of a header and makes its checksum right again, so that the damage goes deeper.
  private static func repair(_ bytes: inout [UInt8], _ place: Int) {
    let start = place / 512 * 512
    guard start + 512 <= bytes.count else { return }
    bytes[place] ^= 1 << UInt8(place % 8)
    for index in 148..<156 { bytes[start + index] = 0x20 }
    let sum = bytes[start..<start + 512].reduce(0) { $0 + Int($1) }
    let digits = String(sum, radix: 8)
    let text = Array((String(repeating: "0", count: 6 - digits.count) + digits).utf8) + [0]
    bytes.replaceSubrange(start + 148..<start + 155, with: text)
  }
}
