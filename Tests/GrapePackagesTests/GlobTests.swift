import Testing

@testable import GrapePackages

@Suite struct GlobTests {
  @Test(arguments: [
    ("*.py", "a.py", true), ("*.py", "x/y/a.py", true), ("*.py", "a.pyc", false), ("/*.py", "x/a.py", false),
    ("src/*.py", "src/a.py", true), ("src/*.py", "src/x/a.py", false), ("src/**/*.py", "src/x/y/a.py", true),
    ("src/**/*.py", "src/a.py", true), ("src/**", "src/a", true), ("src/**", "src", false), ("**/b", "a/b", true),
    ("**/b", "b", true),
    ("data", "x/data", true), ("a?c", "abc", true), ("a?c", "a/c", false), ("[a-c]x", "bx", true),
    ("[!a-c]x", "bx", false),
    ("[]]x", "]x", true), ("a\\*", "a*", true), ("a\\*", "ab", false), ("*a*b*c", "xxaxxbxxc", true),
    ("*a*b*c", "xxaxxbxx", false),
    ("é?", "éx", true), ("", "", false),
  ])
  func patternsFitAsIgnoreFilesDo(_ pattern: String, _ path: String, _ expected: Bool) {
    let fits = (try? GlobPattern(pattern))?.matches(path, isFolder: false) ?? false
    #expect(fits == expected, "\(pattern) on \(path)")
  }

  @Test func aSlashAtTheEndMeansFoldersOnly() throws {
    #expect(try GlobPattern("build/").matches("x/build", isFolder: true))
    #expect(try !GlobPattern("build/").matches("x/build", isFolder: false))
  }

  @Test func manyStarsTakeNoLongTime() throws {
    let pattern = try GlobPattern(String(repeating: "*a", count: 200) + "b")
    #expect(!pattern.matches(String(repeating: "a", count: 5000), isFolder: false))
  }

  @Test func theLastPatternThatFitsDecides() throws {
    let files = try FileSelection(include: ["src", "!*.tmp"], exclude: ["*.log", "!keep.log", "!node_modules"])
    #expect(files.excludes(".git", isFolder: true))
    #expect(files.excludes("x/__pycache__", isFolder: true))
    #expect(!files.excludes("node_modules", isFolder: true))
    #expect(files.excludes("a.log", isFolder: false))
    #expect(!files.excludes("keep.log", isFolder: false))
    #expect(files.includes("src/deep/a.py"))
    #expect(!files.includes("src/a.tmp"))
    #expect(!files.includes("other/a.py"))
  }
}
