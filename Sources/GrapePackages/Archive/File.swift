private import GrapeCore
internal import Glibc

/// An open file, closed with its owner.
struct File: ~Copyable {
  private let descriptor: Int32
  let path: String

  /// What was asked of the file system, and what stands there.
  struct Status {
    enum Kind { case file, folder, link, other }
    var kind: Kind
    var size: Int64
    var isExecutable: Bool
  }

  init(reading path: String) throws(PackageError) {
    self.path = path
    descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else { throw PackageError(system: "open", path) }
  }

  /// Creates a file that must not exist.
  init(creating path: String, mode: mode_t = 0o644) throws(PackageError) {
    self.path = path
    descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode)
    guard descriptor >= 0 else { throw PackageError(system: "create", path) }
  }

  deinit { _ = close(descriptor) }

  func status() throws(PackageError) -> Status {
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { throw PackageError(system: "read", path) }
    return Status(status)
  }

  /// What stands at a path; a link is not followed. Nil if there is nothing.
  static func status(of path: String) throws(PackageError) -> Status? {
    var status = stat()
    guard lstat(path, &status) == 0 else {
      if errno == ENOENT || errno == ENOTDIR { return nil }
      throw PackageError(system: "read", path)
    }
    return Status(status)
  }

  /// Reads up to the buffer's size; 0 at the end.
  func read(into buffer: UnsafeMutableRawBufferPointer) throws(PackageError) -> Int {
    while true {
      let count = Glibc.read(descriptor, buffer.baseAddress, buffer.count)
      if count >= 0 { return count }
      if errno != EINTR { throw PackageError(system: "read", path) }
    }
  }

  func write(_ bytes: UnsafeRawBufferPointer) throws(PackageError) {
    var rest = bytes
    while !rest.isEmpty {
      let count = Glibc.write(descriptor, rest.baseAddress, rest.count)
      if count > 0 {
        rest = UnsafeRawBufferPointer(rebasing: rest[count...])
      } else if count < 0, errno != EINTR {
        throw PackageError(system: "write", path)
      }
    }
  }

  /// Sets the permissions whatever the process's mask.
  func setMode(_ mode: mode_t) throws(PackageError) {
    guard fchmod(descriptor, mode) == 0 else { throw PackageError(system: "set the permissions of", path) }
  }

  func sync() throws(PackageError) {
    guard fsync(descriptor) == 0 else { throw PackageError(system: "write", path) }
  }

  /// All of a small file. `tooLarge` beyond `limit` bytes.
  static func contents(_ path: String, limit: Int) throws(PackageError) -> [UInt8] {
    let file = try File(reading: path)
    guard try file.status().kind == .file else { throw PackageError(.unsupported, "\(path) is not a regular file") }
    // One byte more than allowed tells a file of just the limit from a larger one.
    let bytes = try [UInt8](capacity: limit + 1) { (buffer) throws(PackageError) in
      var count = 0
      while count <= limit {
        let got = try file.read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[count...]))
        if got == 0 { break }
        count += got
      }
      return count
    }
    guard bytes.count <= limit else {
      throw PackageError(.tooLarge, "\(path) is larger than \(ByteCountText.format(limit))")
    }
    return bytes
  }
}

extension File.Status {
  fileprivate init(_ status: stat) {
    switch status.st_mode & S_IFMT {
    case S_IFREG: kind = .file
    case S_IFDIR: kind = .folder
    case S_IFLNK: kind = .link
    default: kind = .other
    }
    size = Int64(status.st_size)
    isExecutable = status.st_mode & 0o111 != 0
  }
}

/// Folders and names.
enum Folder {
  /// The names in a folder, sorted by their bytes, without `.` and `..`.
  static func names(in path: String) throws(PackageError) -> [String] {
    guard let stream = opendir(path) else { throw PackageError(system: "read the folder", path) }
    defer { closedir(stream) }
    var names: [String] = []
    while true {
      errno = 0
      guard let entry = readdir(stream) else {
        if errno != 0 { throw PackageError(system: "read the folder", path) }
        break
      }
      let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
        pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(validatingCString: $0) }
      }
      guard let name else { throw PackageError(.unsafePath, "\(path) holds a file whose name is not UTF-8: rename it") }
      if name != ".", name != ".." { names.append(name) }
    }
    return names.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }
  }

  /// Where a link points.
  static func target(ofLink path: String) throws(PackageError) -> String {
    var buffer = [UInt8](repeating: 0, count: 4096)
    let count = buffer.withUnsafeMutableBytes { bytes in
      bytes.withMemoryRebound(to: CChar.self) { chars in
        chars.baseAddress.map { readlink(path, $0, chars.count) } ?? -1
      }
    }
    guard count >= 0 else { throw PackageError(system: "read the link", path) }
    guard let target = String(validating: buffer[..<count], as: UTF8.self) else {
      throw PackageError(.unsafePath, "\(path) is a link to a name that is not UTF-8")
    }
    return target
  }

  /// Creates a folder. Whether it is there already is told apart by the result: false if it is.
  @discardableResult
  static func create(_ path: String, mode: mode_t = 0o755) throws(PackageError) -> Bool {
    if mkdir(path, mode) == 0 { return true }
    if errno == EEXIST { return false }
    throw PackageError(system: "create the folder", path)
  }

  static func createLink(_ path: String, to target: String) throws(PackageError) {
    guard symlink(target, path) == 0 else { throw PackageError(system: "create the link", path) }
  }

  /// Makes the folder's entries durable.
  static func sync(_ path: String) throws(PackageError) { try File(reading: path).sync() }

  /// Renames; false if the destination is there already and not empty.
  static func rename(_ from: String, to: String) throws(PackageError) -> Bool {
    if Glibc.rename(from, to) == 0 { return true }
    if errno == EEXIST || errno == ENOTEMPTY { return false }
    throw PackageError(system: "rename \(from) to", to)
  }

  /// Removes a file, or a folder with all that is in it; links are not followed. Nothing there is no error.
  static func remove(_ path: String) throws(PackageError) {
    guard let status = try File.status(of: path) else { return }
    guard status.kind == .folder else {
      guard unlink(path) == 0 || errno == ENOENT else { throw PackageError(system: "remove", path) }
      return
    }
    for name in try names(in: path) { try remove(path + "/" + name) }
    guard rmdir(path) == 0 || errno == ENOENT else { throw PackageError(system: "remove the folder", path) }
  }
}

extension PackageError {
  /// The error of the last system call, named by what was tried.
  fileprivate init(system verb: String, _ path: String) {
    let code = errno
    let reason = String(cString: strerror(code))
    self.init(code == ENOENT ? .notFound : .system, "cannot \(verb) \(path): \(reason)")
  }
}
