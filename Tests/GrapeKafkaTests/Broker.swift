import CGrapeLinux
import Glibc
import Synchronization

/// A Kafka broker for the tests: the one that `GRAPE_KAFKA=host:port` names, or a process of its own on a free port, in
/// a temporary directory, which dies with the tests whatever happens to them.
final class Broker: Sendable {
  let address: String

  struct Unavailable: Error, CustomStringConvertible {
    let description: String
  }

  /// The one broker of this test run.
  static func shared() throws -> Broker {
    try running.withLock { running in
      if let running { return try running.get() }
      let result = Result { try Broker() }
      running = result
      return try result.get()
    }
  }

  private static let running = Mutex<Result<Broker, any Error>?>(nil)

  private init() throws {
    if let given = environment("GRAPE_KAFKA") {
      address = given
      return
    }
    let program = try Self.program()
    let port = try Self.freePort()
    var template = Array("/tmp/grape-kafka-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw Unavailable(description: "mkdtemp: errno \(errno)") }
    let directory = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    address = "127.0.0.1:\(port)"
    // The shell stays between: when the tests end, however they end, its input closes, and it ends the broker and takes
    // the directory away.
    let script = """
      trap : TERM
      "$1" start --only kafka --kafka-port "$2" --data-dir "$3" >"$3/output" 2>&1 </dev/null &
      broker=$!
      read -r line
      kill -- -$$
      wait "$broker"
      rm -rf "$3"
      """
    try Self.spawn(["/bin/sh", "-c", script, "sh", program, String(port), directory])
    try Self.waitUntilOpen(port, directory)
  }

  private static func program() throws -> String {
    if let given = environment("GRAPE_NOIDA") { return given }
    // scripts/test.py puts it there.
    let places = (environment("PATH") ?? "").split(separator: ":").map(String.init) + [".venv/bin"]
    for place in places where access("\(place)/noida-db", X_OK) == 0 { return "\(place)/noida-db" }
    throw Unavailable(
      description: """
        no broker: neither GRAPE_KAFKA=host:port nor GRAPE_NOIDA=path is set, and noida-db is not on the PATH. \
        "make test" installs it; "swift test --skip GrapeKafkaTests" leaves these tests out.
        """)
  }

  private static func freePort() throws -> UInt16 {
    let socket = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    guard socket >= 0 else { throw Unavailable(description: "socket: errno \(errno)") }
    defer { close(socket) }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    let result = withUnsafeMutablePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
        bind(socket, address, size) == 0 ? getsockname(socket, address, &size) : -1
      }
    }
    guard result == 0 else { throw Unavailable(description: "bind: errno \(errno)") }
    return UInt16(bigEndian: address.sin_port)
  }

  /// The child's input is a pipe whose other end nobody but this process has, and it never closes.
  private static func spawn(_ words: [String]) throws {
    var pipe: [Int32] = [0, 0]
    guard Glibc.pipe(&pipe) == 0 else { throw Unavailable(description: "pipe: errno \(errno)") }
    for end in pipe { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_adddup2(&actions, pipe[0], 0)
    // A group of its own, and signals as a program expects them: threads of tests have them blocked.
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    var none = sigset_t()
    sigemptyset(&none)
    posix_spawnattr_setsigmask(&attributes, &none)
    var all = sigset_t()
    sigfillset(&all)
    posix_spawnattr_setsigdefault(&attributes, &all)
    posix_spawnattr_setpgroup(&attributes, 0)
    posix_spawnattr_setflags(
      &attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP))
    var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
    defer { for argument in arguments { free(argument) } }
    var child = pid_t()
    let result = posix_spawn(&child, words[0], &actions, &attributes, &arguments, environ)
    close(pipe[0])
    guard result == 0 else { throw Unavailable(description: "posix_spawn: error \(result)") }
  }

  /// Connects until somebody answers.
  private static func waitUntilOpen(_ port: UInt16, _ directory: String) throws {
    let deadline = grape_monotonic_ns() + 30_000_000_000
    while grape_monotonic_ns() < deadline {
      let socket = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
      defer { close(socket) }
      var address = sockaddr_in()
      address.sin_family = sa_family_t(AF_INET)
      address.sin_port = port.bigEndian
      address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
      let connected = withUnsafePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          connect(socket, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
        }
      }
      if connected == 0 { return }
      _ = poll(nil, 0, 20)
    }
    throw Unavailable(description: "the broker on port \(port) does not answer; what it said is in \(directory)/output")
  }
}

func environment(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }
