internal import CGrapeLinux
internal import Glibc
public import GrapeReactor

/// What to start as a worker.
public struct WorkerLaunch: Sendable, Hashable {
  /// Absolute path of the program.
  public var program: String
  /// Arguments behind the program's name.
  public var arguments: [String]
  /// The whole environment of the process.
  public var environment: [String: String]
  /// Working directory.
  public var directory: String

  public init(program: String, arguments: [String], environment: [String: String], directory: String) {
    self.program = program
    self.arguments = arguments
    self.environment = environment
    self.directory = directory
  }
}

/// How a process ended.
public enum ExitStatus: Sendable, Hashable, CustomStringConvertible {
  case exited(Int32)
  case signalled(Int32)

  public var description: String {
    switch self {
    case .exited(let code): "exited with code \(code)"
    case .signalled(let number): "was killed by signal \(number) (\(String(cString: strsignal(number))))"
    }
  }
}

/// A worker that was started, whatever it runs in.
public protocol RunningWorker: AnyObject {
  /// Number of its process.
  var pid: Int32 { get }
  /// Sends a signal to the worker and all that it started.
  func signal(_ number: Int32)
}

/// Where a worker's output comes from.
public enum WorkerStream: String, Sendable { case stdout, stderr }

/// Starts a worker: `onLine` is told of its output, `onExit` once of its end, both on the reactor.
public typealias WorkerStarter = (
  _ launch: WorkerLaunch, _ reactor: Reactor, _ onLine: @escaping (WorkerStream, String) -> Void,
  _ onExit: @escaping (ExitStatus) -> Void
) throws(SystemError) -> any RunningWorker

/// A running worker process: its output as lines, its end as a call. Lives on a reactor.
public final class WorkerProcess: RunningWorker {
  public let pid: Int32
  private let reactor: Reactor
  private let onLine: (WorkerStream, String) -> Void
  private let onExit: (ExitStatus) -> Void
  private var exitSource: Reactor.SourceID?
  private var exitDescriptor: Int32
  private var pipes: [LinePipe] = []
  private var hasExited = false

  /// Starts `launch`. Called on the reactor's thread: the process is killed by the system should that thread (the node) die.
  public init(
    _ launch: WorkerLaunch, reactor: Reactor, onLine: @escaping (WorkerStream, String) -> Void,
    onExit: @escaping (ExitStatus) -> Void
  ) throws(SystemError) {
    self.reactor = reactor
    self.onLine = onLine
    self.onExit = onExit
    let output = try Self.makePipe()
    let errors: (read: Int32, write: Int32)
    do throws(SystemError) { errors = try Self.makePipe() } catch {
      Glibc.close(output.read)
      Glibc.close(output.write)
      throw error
    }
    defer {
      Glibc.close(output.write)
      Glibc.close(errors.write)
    }
    let arguments = CStrings([launch.program] + launch.arguments)
    let environment = CStrings(launch.environment.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" })
    var failedStep: UnsafePointer<CChar>?
    let pid = grape_spawn(
      launch.program, arguments.pointers, environment.pointers, launch.directory, output.write, errors.write,
      &failedStep)
    let error = errno
    withExtendedLifetime((arguments, environment)) {}
    guard pid > 0 else {
      Glibc.close(output.read)
      Glibc.close(errors.read)
      let step = failedStep.map { String(cString: $0) } ?? "start"
      let object = step == "chdir" ? launch.directory : launch.program
      throw SystemError("\(step) \(object)", errno: error)
    }
    self.pid = pid
    exitDescriptor = -1
    do throws(SystemError) {
      exitDescriptor = try system("pidfd_open") { grape_pidfd_open(pid) }
      pipes = [
        try LinePipe(output.read, reactor: reactor) { [unowned self] in self.onLine(.stdout, $0) },
        try LinePipe(errors.read, reactor: reactor) { [unowned self] in self.onLine(.stderr, $0) },
      ]
      exitSource = try reactor.watch(exitDescriptor, for: .read) { [unowned self] _ in reap() }
    } catch {
      Glibc.kill(pid, SIGKILL)
      var status: Int32 = 0
      waitpid(pid, &status, 0)
      for pipe in pipes { pipe.close() }
      if pipes.count < 2 { Glibc.close(errors.read) }
      if pipes.isEmpty { Glibc.close(output.read) }
      if exitDescriptor >= 0 { Glibc.close(exitDescriptor) }
      throw error
    }
  }

  private static func makePipe() throws(SystemError) -> (read: Int32, write: Int32) {
    var ends: [Int32] = [0, 0]
    try system("pipe2") { grape_pipe(&ends) }
    return (ends[0], ends[1])
  }

  /// Sends a signal to the worker and all that it started.
  public func signal(_ number: Int32) {
    guard !hasExited else { return }
    // ESRCH: the group is gone already, which is what was wanted.
    _ = Glibc.kill(-pid, number)
  }

  private func reap() {
    var status: Int32 = 0
    guard grape_reap(pid, &status) == 1, !hasExited else { return }
    // What the worker had started goes with it.
    _ = Glibc.kill(-pid, SIGKILL)
    hasExited = true
    if let exitSource { reactor.unwatch(exitSource) }
    Glibc.close(exitDescriptor)
    for pipe in pipes { pipe.finish() }
    var number: Int32 = 0
    onExit(grape_status_exited(status, &number) ? .exited(number) : signalled(status))
  }

  private func signalled(_ status: Int32) -> ExitStatus {
    var number: Int32 = 0
    _ = grape_status_signalled(status, &number)
    return .signalled(number)
  }
}

/// Null-terminated strings for execve.
private final class CStrings {
  let pointers: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>
  private let count: Int

  init(_ strings: [String]) {
    count = strings.count
    pointers = .allocate(capacity: count + 1)
    for (index, string) in strings.enumerated() { (pointers + index).initialize(to: strdup(string)) }
    (pointers + count).initialize(to: nil)
  }

  deinit {
    for index in 0..<count { free(pointers[index]) }
    pointers.deinitialize(count: count + 1)
    pointers.deallocate()
  }
}
