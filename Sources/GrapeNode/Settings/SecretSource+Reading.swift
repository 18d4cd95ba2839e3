internal import Glibc
public import GrapePackages

extension SecretSource {
  /// Most bytes of a secret in a file.
  static let limit = 64 << 10

  /// The secret. Errors say what is wrong with the place, and nothing of what stands there.
  public func read(environment: [String: String]) throws(NodeError) -> String {
    switch self {
    case .environment(let name):
      guard let value = environment[name] else { throw NodeError("the \(self) is not set") }
      guard !value.isEmpty else { throw NodeError("the \(self) is empty") }
      return value
    case .file(let path):
      var information = stat()
      guard stat(path, &information) == 0 else {
        throw NodeError("\(path) cannot be read: \(String(cString: strerror(errno)))")
      }
      guard information.st_mode & S_IFMT == S_IFREG else { throw NodeError("\(path) is no file") }
      guard information.st_size <= Self.limit else {
        throw NodeError("\(path) has \(information.st_size) bytes: a secret has at most \(Self.limit)")
      }
      let content = try Files.read(path)
      guard !content.contains(0), var text = String(validating: content, as: UTF8.self) else {
        throw NodeError("\(path) is no text in UTF-8")
      }
      // Editors and `echo` end files with one. The two characters are a single one to Swift.
      if text.last == "\n" || text.last == "\r\n" { text.removeLast() }
      guard !text.isEmpty else { throw NodeError("\(path) is empty") }
      return text
    }
  }

  /// What an operator should know of the place though it works; nil: nothing.
  public var warning: String? {
    guard case .file(let path) = self else { return nil }
    var information = stat()
    guard stat(path, &information) == 0, information.st_mode & 0o004 != 0 else { return nil }
    return "every user of the machine can read \(path): chmod o-r takes that away"
  }
}
