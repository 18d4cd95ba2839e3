import Foundation

/// A fresh directory, removed with the last reference.
final class TemporaryDirectory: Sendable {
  let path: String

  init() {
    let url = FileManager.default.temporaryDirectory.appending(path: "grape-log-\(UUID().uuidString)")
    do {
      try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    } catch {
      fatalError("no temporary directory: \(error)")
    }
    path = url.path
  }

  /// `GRAPE_TEST_KEEP` in the environment keeps what a test wrote, to look into a failure.
  deinit {
    if ProcessInfo.processInfo.environment["GRAPE_TEST_KEEP"] == nil {
      try? FileManager.default.removeItem(atPath: path)
    }
  }
}
