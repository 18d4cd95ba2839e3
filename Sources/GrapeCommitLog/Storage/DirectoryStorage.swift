import CGrapeLinux
import Glibc
package import GrapeLog

/// A real directory. A writable one is owned by one process at a time: the file `lock` in it is locked.
package final class DirectoryStorage: SegmentStorage {
  package let directory: String
  private let directoryDescriptor: Int32
  /// -1 if opened for reading only.
  private let lockDescriptor: Int32

  /// Opens `directory`, making it (and missing parents) if needed, and locks it. `locked` names the owner's pid.
  package init(owning directory: String) throws(LogError) {
    try Self.makeDirectories(directory)
    let path = directory + "/lock"
    let lock = Int32(try SystemCall.run("open", path) { Int(grape_open(path, O_RDWR | O_CREAT, 0o600)) })
    if grape_lock_exclusive(lock) < 0 {
      let code = errno
      let owner = Self.ownerName(lock)
      Glibc.close(lock)
      guard code == EWOULDBLOCK else { throw SystemCall.failure("flock", path, code) }
      throw LogError(.locked, "\(directory) is in use by \(owner); stop it first, or choose another data directory")
    }
    do {
      try Self.writeOwner(lock, path)
      directoryDescriptor = try Self.openDirectory(directory)
    } catch {
      Glibc.close(lock)
      throw error
    }
    self.directory = directory
    lockDescriptor = lock
  }

  /// Opens a directory that exists, whoever owns it, to read its files.
  package init(reading directory: String) throws(LogError) {
    directoryDescriptor = try Self.openDirectory(directory)
    self.directory = directory
    lockDescriptor = -1
  }

  package func close() {
    Glibc.close(directoryDescriptor)
    guard lockDescriptor >= 0 else { return }
    // Given up explicitly: a process being started at this moment may hold a copy of the descriptor for a little longer.
    grape_unlock(lockDescriptor)
    Glibc.close(lockDescriptor)
  }

  package func list() throws(LogError) -> [String] {
    guard let stream = opendir(directory) else { throw SystemCall.failure("opendir", directory, errno) }
    defer { closedir(stream) }
    var names: [String] = []
    while true {
      errno = 0
      guard let entry = readdir(stream) else {
        if errno != 0 { throw SystemCall.failure("readdir", directory, errno) }
        return names
      }
      let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
        String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
      }
      if name != "." && name != ".." { names.append(name) }
    }
  }

  package func create(_ name: String) throws(LogError) -> any SegmentFile {
    let path = path(name)
    let descriptor = try SystemCall.run("create", path) { Int(grape_open(path, O_RDWR | O_CREAT | O_EXCL, 0o600)) }
    return DescriptorFile(path: path, descriptor: Int32(descriptor))
  }

  package func open(_ name: String, writable: Bool) throws(LogError) -> any SegmentFile {
    let path = path(name)
    let descriptor = try SystemCall.run("open", path) { Int(grape_open(path, writable ? O_RDWR : O_RDONLY, 0)) }
    return DescriptorFile(path: path, descriptor: Int32(descriptor))
  }

  package func rename(_ name: String, to newName: String) throws(LogError) {
    let from = path(name)
    let to = path(newName)
    _ = try SystemCall.run("rename", "\(from) to \(to)") { Int(grape_rename_new(from, to)) }
  }

  package func replace(_ name: String, with newFile: String) throws(LogError) {
    let from = path(newFile)
    let to = path(name)
    _ = try SystemCall.run("rename", "\(from) to \(to)") { Int(Glibc.rename(from, to)) }
  }

  package func remove(_ name: String) throws(LogError) {
    let path = path(name)
    _ = try SystemCall.run("unlink", path) { Int(unlink(path)) }
  }

  package func synchronizeDirectory() throws(LogError) {
    _ = try SystemCall.run("fsync", directory) { Int(fsync(directoryDescriptor)) }
  }

  package func availableBytes() throws(LogError) -> Int64 {
    Int64(try SystemCall.run("statvfs", directory) { Int(grape_available_bytes(directory)) })
  }

  private func path(_ name: String) -> String { directory + "/" + name }

  private static func openDirectory(_ path: String) throws(LogError) -> Int32 {
    Int32(try SystemCall.run("open", path) { Int(grape_open(path, O_RDONLY | O_DIRECTORY, 0)) })
  }

  private static func makeDirectories(_ path: String) throws(LogError) {
    var prefix = path.hasPrefix("/") ? "/" : ""
    for part in path.split(separator: "/") {
      let parent = prefix.isEmpty ? "." : prefix
      prefix += (prefix.isEmpty || prefix == "/" ? "" : "/") + part
      if mkdir(prefix, 0o700) == 0 {
        // The new name must outlive a power cut as surely as what is written below it.
        let descriptor = try openDirectory(parent)
        defer { Glibc.close(descriptor) }
        _ = try SystemCall.run("fsync", parent) { Int(fsync(descriptor)) }
      } else if errno != EEXIST {
        throw SystemCall.failure("mkdir", prefix, errno)
      }
    }
  }

  private static func ownerName(_ lock: Int32) -> String {
    withUnsafeTemporaryAllocation(byteCount: 32, alignment: 1) { buffer in
      let count = pread(lock, buffer.baseAddress!, buffer.count, 0)
      let text = String(decoding: buffer.prefix(max(count, 0)).prefix { $0 != UInt8(ascii: "\n") }, as: UTF8.self)
      return text.isEmpty ? "another process" : "process \(text)"
    }
  }

  private static func writeOwner(_ lock: Int32, _ path: String) throws(LogError) {
    let text = Array("\(getpid())\n".utf8)
    _ = try SystemCall.run("ftruncate", path) { Int(ftruncate(lock, 0)) }
    _ = try SystemCall.run("pwrite", path) { pwrite(lock, text, text.count, 0) }
  }
}
