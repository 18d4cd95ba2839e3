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

  deinit { try? FileManager.default.removeItem(atPath: path) }
}
