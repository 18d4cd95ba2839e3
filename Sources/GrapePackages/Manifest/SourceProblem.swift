public import GrapeCore

/// A place in a text file, both counted from 1; the column counts Unicode scalars.
public struct SourceMark: Hashable, Comparable, Sendable {
  public var line: Int
  public var column: Int

  public init(line: Int, column: Int) {
    self.line = line
    self.column = column
  }

  public static func < (left: SourceMark, right: SourceMark) -> Bool {
    (left.line, left.column) < (right.line, right.column)
  }
}

/// Something wrong in a manifest or profile, and where: `grape.yaml:12:5: slots.raw.emits[1]: …`.
public struct SourceProblem: Hashable, Sendable, CustomStringConvertible {
  /// The file as its reader was told to call it.
  public var file: String
  public var mark: SourceMark
  public var path: FieldPath
  /// What is wrong and what would be right.
  public var message: String

  public init(file: String, mark: SourceMark, path: FieldPath = FieldPath(), message: String) {
    self.file = file
    self.mark = mark
    self.path = path
    self.message = message
  }

  public var description: String {
    let place = "\(file):\(mark.line):\(mark.column): "
    return path.steps.isEmpty ? place + message : "\(place)\(path): \(message)"
  }
}

/// Everything that is wrong in a manifest and its profile.
public struct ManifestError: Error, Hashable, Sendable, CustomStringConvertible {
  /// At least one, in order of file and place.
  public var problems: [SourceProblem]

  public init(_ problems: [SourceProblem]) { self.problems = problems }

  /// One problem a line.
  public var description: String { problems.map(\.description).joined(separator: "\n") }
}
