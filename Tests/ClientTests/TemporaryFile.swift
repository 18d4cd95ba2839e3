import Glibc
import Testing

/// A file that is gone with the value.
final class TemporaryFile {
  let path: String

  init(_ content: [UInt8], suffix: String = "") throws {
    var template = Array("/tmp/grape-test-XXXXXX\(suffix)".utf8CString)
    let descriptor = mkstemps(&template, Int32(suffix.utf8.count))
    try #require(descriptor >= 0)
    path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    var written = 0
    while written < content.count {
      let count = content.withUnsafeBytes { write(descriptor, $0.baseAddress! + written, content.count - written) }
      try #require(count > 0)
      written += count
    }
    close(descriptor)
  }

  convenience init(_ text: String, suffix: String = "") throws { try self.init(Array(text.utf8), suffix: suffix) }

  deinit { unlink(path) }
}
