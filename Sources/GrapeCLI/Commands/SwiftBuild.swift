import Glibc
import GrapeWire

/// Builds the executable of a Swift application.
struct SwiftBuild {
  private let folder: String
  private let product: String
  private let isStatic: Bool

  init(folder: String, product: String, isStatic: Bool) {
    self.folder = folder
    self.product = product
    self.isStatic = isStatic
  }

  private var arguments: [String] {
    ["swift", "build", "-c", "release", "--package-path", folder, "--product", product]
      + (isStatic ? ["--static-swift-stdlib"] : [])
  }

  /// The binary's path; nil if the folder is no Swift package: it then holds `bin/PRODUCT` itself.
  func binary(building: Bool) throws -> String? {
    guard access(folder + "/Package.swift", F_OK) == 0 else { return nil }
    if building {
      Output.complain("building \(product) in \(folder)")
      // The build's output is not the command's: it goes to standard error.
      _ = try run(arguments, capturing: false)
    }
    let place = try run(arguments + ["--show-bin-path"], capturing: true)
    let binary = place.split(separator: "\n").last.map { "\($0)/\(product)" } ?? ""
    guard access(binary, X_OK) == 0 else {
      throw CommandFailure(
        .badInput,
        "\(folder): there is no built \(product) (looked for \(binary)); leave --no-build out, or check `product` in grape.yaml"
      )
    }
    return binary
  }

  /// Runs a program to its end; its output if `capturing`, otherwise that goes to standard error.
  private func run(_ arguments: [String], capturing: Bool) throws -> String {
    var pipes: [Int32] = [-1, -1]
    if capturing {
      guard pipe(&pipes) == 0 else { throw CommandFailure(.failure, "no pipe: \(String(cString: strerror(errno)))") }
    }
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_adddup2(&actions, capturing ? pipes[1] : 2, 1)
    if capturing {
      posix_spawn_file_actions_addclose(&actions, pipes[0])
      posix_spawn_file_actions_addclose(&actions, pipes[1])
    }
    var words: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
    defer { for word in words { free(word) } }
    var child = pid_t()
    let result = posix_spawnp(&child, arguments[0], &actions, nil, &words, environ)
    if capturing { close(pipes[1]) }
    guard result == 0 else {
      if capturing { close(pipes[0]) }
      throw CommandFailure(
        .failure,
        "cannot run `swift`: \(String(cString: strerror(result))); install Swift, or deploy with a binary in bin/\(product)"
      )
    }
    var output: [UInt8] = []
    if capturing {
      output = try FileContent.read(descriptor: pipes[0], name: "the output of swift build", limit: 1 << 20).array
      close(pipes[0])
    }
    var status: Int32 = 0
    while waitpid(child, &status, 0) < 0, errno == EINTR {}
    guard status == 0 else {
      throw CommandFailure(.badInput, "`\(arguments.joined(separator: " "))` failed")
    }
    return String(decoding: output, as: UTF8.self)
  }
}
