package import GrapeLog

/// The files of a log's directory, as the log needs them: a real directory, or a simulated one.
///
/// Names are plain file names. Nothing about names (creation, renaming, removal) is durable before
/// `synchronizeDirectory` has returned. Every error names the file.
package protocol SegmentStorage: AnyObject, Sendable {
  /// Where the files are, for messages.
  var directory: String { get }

  /// Names of all files, in no order.
  func list() throws(LogError) -> [String]

  /// Creates a file, which must not exist.
  func create(_ name: String) throws(LogError) -> any SegmentFile

  /// Opens a file that exists.
  func open(_ name: String, writable: Bool) throws(LogError) -> any SegmentFile

  /// Gives a file another name, which no file has: fails otherwise.
  func rename(_ name: String, to newName: String) throws(LogError)

  /// Gives a file the name of another, which goes away in the same step.
  func replace(_ name: String, with newFile: String) throws(LogError)

  func remove(_ name: String) throws(LogError)

  /// Makes creations, renamings and removals durable.
  func synchronizeDirectory() throws(LogError)

  /// Bytes that may still be written before the disk is full.
  func availableBytes() throws(LogError) -> Int64

  /// Lets go of the directory, after which another process may own it. All files must be closed before.
  func close()
}

/// One open file. Reads and writes at different places may happen at the same time; writes and `resize` have one
/// caller at a time.
package protocol SegmentFile: AnyObject, Sendable {
  /// For messages.
  var path: String { get }

  func size() throws(LogError) -> Int64

  /// Writes all bytes at `offset`, or fails.
  func write(_ bytes: UnsafeRawBufferPointer, at offset: Int64) throws(LogError)

  /// Reads as much as there is of `bytes.count` bytes: fewer only at the file's end.
  func read(into bytes: UnsafeMutableRawBufferPointer, at offset: Int64) throws(LogError) -> Int

  /// As `read`, but only what is to be had without the disk, which may be nothing.
  func readCached(into bytes: UnsafeMutableRawBufferPointer, at offset: Int64) throws(LogError) -> Int

  /// As `read`, and what lies behind is brought into memory as well, up to `count` bytes from `offset` on: not
  /// more, whatever `setReadAhead` says. Returns when all of it is there.
  func readPiece(
    into bytes: UnsafeMutableRawBufferPointer, of count: Int, at offset: Int64
  ) throws(LogError) -> Int

  /// Whether reads may bring in more of the file than they ask for, as they do by default.
  func setReadAhead(_ isOn: Bool)

  /// Makes what was written durable, and what is needed to read it back.
  func synchronize() throws(LogError)

  /// Cuts the file, or extends it with zeros.
  func resize(to size: Int64) throws(LogError)

  /// Reserves space up to `size`, which reads as zeros; the file is that long then.
  func preallocate(to size: Int64) throws(LogError)

  /// Closes the file. Idempotent; no other call may follow.
  func close()
}

/// The times that the log needs, so that a simulation can supply its own.
package struct LogClock: Sendable {
  /// Milliseconds since 1970 UTC.
  package var wallMilliseconds: @Sendable () -> Int64
  /// Nanoseconds since some moment; never goes back.
  package var monotonicNanoseconds: @Sendable () -> Int64

  package init(
    wallMilliseconds: @escaping @Sendable () -> Int64, monotonicNanoseconds: @escaping @Sendable () -> Int64
  ) {
    self.wallMilliseconds = wallMilliseconds
    self.monotonicNanoseconds = monotonicNanoseconds
  }
}

/// For files that have no cache before them and no read-ahead.
extension SegmentFile {
  package func readCached(into bytes: UnsafeMutableRawBufferPointer, at offset: Int64) throws(LogError) -> Int { 0 }

  package func readPiece(
    into bytes: UnsafeMutableRawBufferPointer, of count: Int, at offset: Int64
  ) throws(LogError) -> Int { try read(into: bytes, at: offset) }

  package func setReadAhead(_ isOn: Bool) {}
}
