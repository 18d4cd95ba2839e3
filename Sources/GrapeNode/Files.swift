internal import CGrapeLinux
internal import Glibc

/// The few file operations a node needs, with errors that name the path.
enum Files {
  /// Creates a folder and those above it, readable by the owner's group at most.
  static func makeDirectory(_ path: String) throws(NodeError) {
    var prefix = path.hasPrefix("/") ? "" : "."
    for part in path.split(separator: "/") {
      prefix += "/" + part
      if mkdir(prefix, 0o750) != 0, errno != EEXIST { throw failure("mkdir \(prefix)") }
    }
    var information = stat()
    guard stat(path, &information) == 0, information.st_mode & S_IFMT == S_IFDIR else {
      throw NodeError("\(path) is not a folder")
    }
  }

  /// Puts `bytes` at `path` whole or not at all.
  static func write(_ bytes: UnsafeRawBufferPointer, to path: String) throws(NodeError) {
    let temporary = path + ".new"
    let file = grape_open(temporary, O_WRONLY | O_CREAT | O_TRUNC, 0o640)
    guard file >= 0 else { throw failure("open \(temporary)") }
    do throws(NodeError) {
      try append(bytes, to: file, path: temporary)
    } catch {
      close(file)
      unlink(temporary)
      throw error
    }
    close(file)
    guard rename(temporary, path) == 0 else { throw failure("rename \(temporary)") }
  }

  /// Writes all of `bytes` to an open file.
  static func append(_ bytes: UnsafeRawBufferPointer, to file: Int32, path: String) throws(NodeError) {
    var position = 0
    while position < bytes.count {
      let count = Glibc.write(file, bytes.baseAddress! + position, bytes.count - position)
      if count < 0 {
        if errno == EINTR { continue }
        throw failure("write \(path)")
      }
      position += count
    }
  }

  /// The whole content of a file.
  static func read(_ path: String) throws(NodeError) -> [UInt8] {
    let file = grape_open(path, O_RDONLY, 0)
    guard file >= 0 else { throw failure("open \(path)") }
    defer { close(file) }
    var content: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 256 * 1024)
    while true {
      let count = Glibc.read(file, &buffer, buffer.count)
      if count == 0 { return content }
      if count < 0 {
        if errno == EINTR { continue }
        throw failure("read \(path)")
      }
      content += buffer[0..<count]
    }
  }

  /// Removes the files in a folder.
  static func empty(_ path: String) throws(NodeError) {
    guard let folder = opendir(path) else { throw failure("opendir \(path)") }
    defer { closedir(folder) }
    while let entry = readdir(folder) {
      let name = withUnsafeBytes(of: entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
      guard name != ".", name != ".." else { continue }
      guard unlink("\(path)/\(name)") == 0 else { throw failure("unlink \(path)/\(name)") }
    }
  }

  static func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }

  private static func failure(_ operation: String) -> NodeError {
    NodeError("\(operation): \(String(cString: strerror(errno)))")
  }

  /// The absolute form of `path`.
  static func absolute(_ path: String) -> String {
    if path.hasPrefix("/") { return path }
    guard let current = getcwd(nil, 0) else { return path }
    defer { free(current) }
    return String(cString: current) + "/" + path
  }
}
