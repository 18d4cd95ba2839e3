import Foundation
import GrapeCore
import GrapePackages
import Testing

/// The refusal of an archive; empty if it is taken.
func refusal(_ archive: [UInt8], limits: PackageLimits = PackageLimits()) -> String {
  do throws(PackageError) {
    _ = try Package.load(archive: archive, limits: limits)
    return ""
  } catch {
    return "\(error.code): \(error.message)"
  }
}

@Suite struct ArchiveTests {
  @Test func theVersionIsThatOfTheContentHoweverItIsPacked() throws {
    let scratch = try Scratch()
    try scratch.application()
    let folder = try Package.load(folder: scratch.path + "/app")
    #expect(folder.version.count == 64)
    #expect(folder.shortVersion == String(folder.version.prefix(12)))
    #expect(folder.files.map(\.path) == ["app.py", "bin/tool", "data/empty.txt", "grape.yaml"])
    #expect(folder.files.map(\.kind) == [.file, .executable, .file, .file])

    let made = try PackageArchive.make(folder: scratch.path + "/app", to: scratch.path + "/made.tar.zst")
    #expect(made.package == folder)
    #expect(made.bytes == Int64(try scratch.bytes("made.tar.zst").count))
    #expect(try scratch.shell("sha256sum made.tar.zst").hasPrefix(made.sha256))
    #expect(try PackageArchive.make(folder: scratch.path + "/app").archive == scratch.bytes("made.tar.zst"))

    try scratch.shell("touch -d 2001-01-01 app/app.py; mkdir app/hollow")
    try scratch.shell(
      """
      tar cf root.tar -C app .; tar czf root.tar.gz -C app .; tar cf - -C app . | zstd -q -19 -o root.tar.zst
      tar cf top.tar app; tar cf star.tar -C app bin app.py data grape.yaml
      tar --format=pax -cf pax.tar app; tar --format=ustar -cf ustar.tar app; tar --format=v7 -cf v7.tar app; tar --format=gnu -cf gnu.tar app
      (tar cf - -C app . | head -c 3000 | gzip; tar cf - -C app . | tail -c +3001 | gzip) > members.tar.gz
      """)
    for name in [
      "made.tar.zst", "root.tar", "root.tar.gz", "root.tar.zst", "top.tar", "star.tar", "pax.tar", "ustar.tar",
      "v7.tar", "gnu.tar",
      "members.tar.gz",
    ] {
      #expect(try Package.load(archive: scratch.path + "/" + name) == folder, "\(name)")
      #expect(try Package.load(archive: scratch.bytes(name)) == folder, "\(name)")
    }
  }

  @Test func anArchiveThatSomebodyMadeLosesWhatTheManifestExcludes() throws {
    let scratch = try Scratch()
    try scratch.application()
    try scratch.write("app/grape.yaml", TarBuilder.manifest + "exclude: [test_app.py, /bin]\n")
    for name in ["test_app.py", "__pycache__/app.pyc", ".git/HEAD", "bin/deep/tool"] {
      try scratch.write("app/" + name, "x")
    }
    let folder = try Package.load(folder: scratch.path + "/app")
    #expect(folder.files.map(\.path) == ["app.py", "data/empty.txt", "grape.yaml"])
    try scratch.shell("tar czf app.tgz app")
    #expect(try Package.load(archive: scratch.path + "/app.tgz") == folder)
    let unpacked = try PackageArchive.unpack(.file(scratch.path + "/app.tgz"), into: scratch.path + "/store")
    #expect(unpacked.package == folder)
    #expect(try Package.load(folder: unpacked.folder) == folder, "read again from the disk it is the same package")
    #expect(try scratch.shell("cd store/*; find . -type f | sort") == "./app.py\n./data/empty.txt\n./grape.yaml\n")
  }

  @Test func whatTheManifestStartsIsNeverExcluded() throws {
    let scratch = try Scratch()
    try scratch.write(
      "app/grape.yaml", "grape: 1\nname: f\nruntime: swift\nentry: F\nslots: {raw: {}}\nexclude: [bin]\n")
    try scratch.write("app/bin/F", "x", executable: true)
    try scratch.write("app/bin/other", "x")
    let folder = try Package.load(folder: scratch.path + "/app")
    #expect(folder.files.map(\.path) == ["bin/F", "grape.yaml"])
    #expect(try Package.load(archive: PackageArchive.make(folder: scratch.path + "/app").archive) == folder)
    try scratch.shell("tar cf all.tar app")
    #expect(try Package.load(archive: scratch.path + "/all.tar") == folder)
    #expect(throws: PackageError.self) {
      try Package.load(folder: scratch.path + "/app", adding: ["bin/made": scratch.path + "/app/bin/other"])
    }
  }

  @Test func theVersionChangesWithNameContentAndExecutableBit() throws {
    let scratch = try Scratch()
    try scratch.application()
    func version() throws -> String { try Package.load(folder: scratch.path + "/app").version }
    var versions: Set<String> = [try version()]
    try scratch.shell("chmod +x app/app.py")
    versions.insert(try version())
    try scratch.write("app/app.py", "print('hallo')\n")
    versions.insert(try version())
    try scratch.shell("mv app/data/empty.txt app/data/void.txt")
    versions.insert(try version())
    try scratch.link("app/link", to: "app.py")
    versions.insert(try version())
    #expect(versions.count == 5)
  }

  @Test func systemTarReadsWhatWeWrite() throws {
    let scratch = try Scratch()
    try scratch.application()
    let deep = "app/" + String(repeating: "folder-of-some-length/", count: 8) + "file.txt"
    try scratch.write(deep, "deep")
    let long = "app/" + String(repeating: "n", count: 200)
    try scratch.write(long, "long")
    try scratch.link("app/data/up", to: "../app.py")
    let made = try PackageArchive.make(folder: scratch.path + "/app", to: scratch.path + "/made.tar.zst")
    try scratch.shell("mkdir out; zstd -qdc made.tar.zst | tar xf - -C out; diff -r app out")
    #expect(try Package.load(archive: scratch.path + "/made.tar.zst") == made.package)
    #expect(try Package.load(folder: scratch.path + "/out") == made.package)
    let listing = try scratch.shell("zstd -qdc made.tar.zst | tar tvf - --numeric-owner")
    #expect(listing.split(separator: "\n").allSatisfy { $0.contains(" 0/0 ") && $0.contains(" 1970-01-01 ") })
  }

  @Test func longNamesOfEveryFormatAreRead() throws {
    let scratch = try Scratch()
    try scratch.application()
    try scratch.write(
      "app/" + String(repeating: "long-folder-name/", count: 12) + String(repeating: "f", count: 150), "x")
    let folder = try Package.load(folder: scratch.path + "/app")
    try scratch.shell("tar --format=pax -cf pax.tar app; tar --format=gnu -cf gnu.tar app")
    #expect(try Package.load(archive: scratch.path + "/pax.tar") == folder)
    #expect(try Package.load(archive: scratch.path + "/gnu.tar") == folder)
  }

  @Test func unpackingIsWholeAndIdempotent() throws {
    let scratch = try Scratch()
    try scratch.application()
    try scratch.link("app/data/up", to: "../app.py")
    try scratch.shell("tar czf app.tgz app; mkdir store")
    let store = scratch.path + "/store"
    try scratch.write("store/.unpack-1234-ab/half", "left behind")
    try PackageArchive.removeLeftovers(in: store)

    let first = try PackageArchive.unpack(.file(scratch.path + "/app.tgz"), into: store)
    #expect(first.folder == store + "/" + first.package.version)
    try scratch.shell("diff -r app store/\(first.package.version)")
    #expect(try Package.load(folder: first.folder) == first.package)
    #expect(try scratch.shell("stat -c %a store/*/bin/tool store/*/app.py").split(separator: "\n") == ["755", "644"])

    let again = try PackageArchive.unpack(
      .bytes(try scratch.bytes("app.tgz")), into: store, expecting: first.package.version)
    #expect(again == first)
    #expect(try scratch.shell("ls -A store") == first.package.version + "\n")

    #expect(throws: PackageError.self) {
      try PackageArchive.unpack(
        .file(scratch.path + "/app.tgz"), into: store, expecting: String(repeating: "0", count: 64))
    }
    #expect(try scratch.shell("ls -A store") == first.package.version + "\n")
  }

  @Test func nothingIsLeftOfAnArchiveThatIsRefused() throws {
    let scratch = try Scratch()
    var tar = TarBuilder.good
    tar.add("../evil", data: "x")
    #expect(throws: PackageError.self) {
      try PackageArchive.unpack(.bytes(tar.finished), into: scratch.path + "/store")
    }
    #expect(try scratch.shell("ls -A") == "")
    #expect(throws: PackageError.self) {
      try PackageArchive.make(folder: scratch.path + "/none", to: scratch.path + "/out.tar.zst")
    }
    try scratch.write("app/grape.yaml", TarBuilder.manifest)
    #expect(throws: PackageError.self) {
      try PackageArchive.make(folder: scratch.path + "/app", to: scratch.path + "/out.tar.zst")
    }
    #expect(try scratch.shell("ls -A") == "app\n")
  }

  @Test func aFileInTheWayIsNotOverwritten() throws {
    let scratch = try Scratch()
    try scratch.application()
    try scratch.write("out", "precious")
    #expect(throws: PackageError.self) {
      try PackageArchive.make(folder: scratch.path + "/app", to: scratch.path + "/out")
    }
    #expect(try scratch.shell("cat out") == "precious")
  }
}

@Suite struct FolderTests {
  private func refusal(_ scratch: Scratch, limits: PackageLimits = PackageLimits()) -> String {
    do throws(PackageError) {
      _ = try Package.load(folder: scratch.path + "/app", limits: limits)
      return ""
    } catch {
      return "\(error.code): \(error.message)".replacing(scratch.path, with: "T")
    }
  }

  @Test func excludedFilesStayOut() throws {
    let scratch = try Scratch()
    try scratch.application()
    for name in [
      ".git/HEAD", "__pycache__/app.pyc", ".build/x", ".venv/bin/python", "x/y.pyc", ".grape/grape.py", "big.csv",
      "keep.csv",
    ] {
      try scratch.write("app/" + name, "x")
    }
    try scratch.write("app/grape.yaml", TarBuilder.manifest + "exclude: [\"*.csv\", \"!keep.csv\", /data]\n")
    #expect(
      try Package.load(folder: scratch.path + "/app").files.map(\.path) == [
        "app.py", "bin/tool", "grape.yaml", "keep.csv",
      ])
    try scratch.write("app/grape.yaml", TarBuilder.manifest + "include: [app.py, bin]\n")
    #expect(try Package.load(folder: scratch.path + "/app").files.map(\.path) == ["app.py", "bin/tool", "grape.yaml"])
  }

  @Test func filesFromElsewhereAreAdded() throws {
    let scratch = try Scratch()
    try scratch.write("app/grape.yaml", "grape: 1\nname: f\nruntime: swift\nentry: Flights\nslots: {raw: {}}\n")
    try scratch.write("build/Flights", "binary", executable: true)
    #expect(
      refusal(scratch)
        == "missingFile: grape.yaml: entry: the package does not hold \"bin/Flights\", which the manifest starts: build it with \"swift build -c release --product Flights\" and put it there; grape deploy does both"
    )
    #expect(try Package.load(folder: scratch.path + "/app", requiringEntry: false).files.count == 1)
    let package = try Package.load(
      folder: scratch.path + "/app", adding: ["bin/Flights": scratch.path + "/build/Flights"])
    #expect(package.files.map(\.path) == ["bin/Flights", "grape.yaml"])
    #expect(package.files[0].kind == .executable)
  }

  @Test func aProfileOfItsOwnIsRead() throws {
    let scratch = try Scratch()
    try scratch.application()
    try scratch.write("app/profile.yaml", "workers: {max: 7}\n")
    #expect(try Package.load(folder: scratch.path + "/app").manifest.profile.workers.max == 7)
    try scratch.shell("tar cf a.tar app")
    #expect(try Package.load(archive: scratch.path + "/a.tar").manifest.profile.workers.max == 7)
  }

  @Test func whatIsWrongIsSaid() throws {
    let scratch = try Scratch()
    #expect(refusal(scratch) == "notFound: there is no folder T/app")
    try scratch.write("app/x", "")
    #expect(
      refusal(scratch)
        == "noManifest: T/app holds no grape.yaml: an application's folder does; \"grape init NAME\" makes one")
    try scratch.write("app/grape.yml", "")
    #expect(refusal(scratch) == "noManifest: T/app holds no grape.yaml: rename grape.yml to grape.yaml")
    try scratch.write("app/grape.yaml", "grape: 1\n")
    #expect(refusal(scratch).hasPrefix("invalidManifest: T/app/grape.yaml:1:1: the field \"name\" is missing"))
    try scratch.write("app/grape.yaml", TarBuilder.manifest)
    try scratch.write("app/apps.py", "")
    #expect(
      refusal(scratch)
        == "missingFile: grape.yaml: entry: the package does not hold \"app.py\", which the manifest starts: did you mean \"apps.py\"?"
    )
    try scratch.write("app/app.py", "")
    #expect(refusal(scratch) == "")
    try scratch.link("app/out", to: "/etc/passwd")
    #expect(
      refusal(scratch)
        == "unsafePath: T/app/out is a link to \"/etc/passwd\", an absolute path: links must be relative and stay in the package; exclude it in grape.yaml or copy the file"
    )
    try scratch.shell("rm app/out; mkfifo app/pipe")
    #expect(
      refusal(scratch)
        == "unsupported: T/app/pipe is not a regular file; exclude it in grape.yaml, for instance exclude: [pipe]")
    try scratch.shell("rm app/pipe")
    var limits = PackageLimits()
    limits.files = 2
    #expect(
      refusal(scratch, limits: limits)
        == "tooLarge: T/app holds 5 files: a package may hold 2; list what it needs under \"include\" in grape.yaml")
    limits = PackageLimits()
    limits.unpackedBytes = 10
    #expect(
      refusal(scratch, limits: limits)
        == "tooLarge: T/app holds more than 10, the most a package may hold: with grape.yaml it is too much; exclude what workers do not need"
    )
    try scratch.write(
      "app/grape.yaml", "grape: 1\nname: f\nruntime: executable\ncommand: [./app.py]\nslots: {raw: {}}\n")
    #expect(
      refusal(scratch)
        == "missingFile: grape.yaml: command: \"app.py\", which the manifest starts, is not executable: run chmod +x on it"
    )
  }
}
