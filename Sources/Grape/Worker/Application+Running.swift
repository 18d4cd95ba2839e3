internal import CGrapeLinux
internal import Glibc
internal import Synchronization

extension Application {
  /// Thrown by `run` and `runBlocking` at a second call: a process is one worker.
  public struct AlreadyRunning: Error, Sendable, CustomStringConvertible {
    public var description: String { "the application runs already" }
  }

  /// Runs the worker that the node started this process as, on a thread of its own, and ends the process when the node
  /// asks for it: the call does not return.
  ///
  /// Exit statuses: 0 asked to end; 1 `onStart` failed; 64 not started by a node; 69 the node is gone or refuses
  /// the worker; 70 the node broke the protocol; 71 the system lacks descriptors or threads.
  ///
  /// - Throws: `AlreadyRunning` at a second call.
  public func run() async throws {
    let worker = try makeWorker()
    guard let thread = SystemThread({ worker.run() }) else {
      WorkerEnd.system("no thread for the worker: errno \(errno)").exitProcess()
    }
    thread.detach()
    // The worker's thread ends the process.
    await withUnsafeContinuation { (_: UnsafeContinuation<Void, Never>) in }
  }

  /// The same on the calling thread.
  public func runBlocking() throws -> Never {
    try makeWorker().run()
    // The end of `run` is the end of the process, unless the heartbeat's thread is just bringing it about.
    while true { pause() }
  }

  private func makeWorker() throws(AlreadyRunning) -> Worker {
    let wasRunning = registry.withLock { registry in
      defer { registry.isRunning = true }
      return registry.isRunning
    }
    if wasRunning { throw AlreadyRunning() }
    guard let environment = WorkerEnvironment.ofProcess() else {
      WorkerEnd.usage(
        """
        this program is a worker of a Grape application and is started by a node.
        Deploy the application (grape deploy FOLDER); the node then runs it when an event comes.
        To try handlers without a node use TestRun in a test.
        """
      ).exitProcess()
    }
    guard let executor = LoopExecutor() else {
      WorkerEnd.system("no descriptor for waking the worker: errno \(errno)").exitProcess()
    }
    ProcessSignals.install(waking: executor.wakeDescriptor)
    let descriptor = grape_unix_connect(environment.socket)
    guard descriptor >= 0 else {
      WorkerEnd.unavailable(
        "cannot connect to the node at \(environment.socket): \(String(cString: strerror(errno)))"
      ).exitProcess()
    }
    return Worker(
      application: self, environment: environment, descriptor: descriptor, executor: executor,
      end: { $0.exitProcess() })
  }
}
