import GrapeCore
import GrapeWire
import Testing

@testable import Grape

@Suite(.timeLimit(.minutes(1))) struct ClientTests {
  @Test func `many tasks share one connection, and each gets its own answer`() async throws {
    let node = try FakeNode { frame in
      [FakeNode.ack(id: frame.id, topic: "a.events", partition: 0, offset: Int64(frame.body.count))]
    }
    var configuration = Client.Configuration()
    configuration.window = 8
    let client = try await Client(path: node.path, configuration: configuration)
    try await withThrowingTaskGroup(of: (Int, Int64).self) { group in
      for size in 0..<500 {
        group.addTask {
          let event = OutgoingEvent("a@b", value: ByteSlice([UInt8](repeating: 1, count: size)))
          return (size, try await client.exec(event).offset)
        }
      }
      for try await (size, offset) in group { #expect(offset == Int64(size + 23)) }
    }
  }

  @Test func `a call gives the final reply, and a failure with the handler's code`() async throws {
    let node = try FakeNode { frame in
      frame.id == 1
        ? [FakeNode.reply(id: 1, value: [9], isFinal: false), FakeNode.reply(id: 1, value: [1, 2])]
        : [FakeNode.reply(id: frame.id, .handlerError, code: 7, message: "out of stock")]
    }
    let client = try await Client(path: node.path)
    #expect(try await client.call(OutgoingEvent("a@b")).value.array == [1, 2])
    let error = await #expect(throws: StatusError.self) { try await client.call(OutgoingEvent("a@b")) }
    #expect(error == StatusError(.handlerError, "out of stock", code: 7, ran: .yes))
  }

  @Test func `replies come one by one and end with the final one`() async throws {
    let node = try FakeNode { frame in
      (1...5).map { FakeNode.reply(id: frame.id, value: [$0], isFinal: $0 == 5) }
    }
    let client = try await Client(path: node.path)
    var values: [[UInt8]] = []
    for try await reply in client.replies(OutgoingEvent("a@b")) { values.append(reply.value.array) }
    #expect(values == [[1], [2], [3], [4], [5]])
  }

  @Test func `a reader of replies that falls behind is told so, and the call is given up`() async throws {
    let cancelled = Shared<Bool>(false)
    let node = try FakeNode { frame in
      switch frame.type {
      case .exec: return (1...50).map { FakeNode.reply(id: frame.id, value: [$0], isFinal: false) }
      case .cancel:
        cancelled.change { $0 = true }
        return []
      // The request below is answered only after the CANCEL before it was seen.
      default: return [FakeNode.response(id: frame.id, [:])]
      }
    }
    let client = try await Client(path: node.path)
    let iterator = client.replies(OutgoingEvent("a@b"), buffer: 3).makeAsyncIterator()
    var replies = iterator
    let first = try await replies.next()
    #expect(first?.value.array == [1])
    _ = try await client.request("barrier")
    var status: Status?
    do {
      while try await replies.next() != nil {}
    } catch let error as StatusError {
      status = error.status
    }
    #expect(status == .queueFull)
    _ = try await client.request("barrier")
    #expect(cancelled())
  }

  @Test func `cancelling the task sends CANCEL for its call`() async throws {
    let (frames, continuation) = AsyncStream.makeStream(of: FrameType.self)
    let node = try FakeNode { frame in
      continuation.yield(frame.type)
      return []
    }
    let client = try await Client(path: node.path)
    let call = Task { try await client.call(OutgoingEvent("a@b")) }
    var types = frames.makeAsyncIterator()
    #expect(await types.next() == .exec)
    call.cancel()
    #expect(await types.next() == .cancel)
    await #expect(throws: CancellationError.self) { try await call.value }
  }

  @Test func `a task cancelled before it sends fails at once`() async throws {
    let node = try FakeNode { _ in [] }
    let client = try await Client(path: node.path)
    let call = Task {
      withUnsafeCurrentTask { $0?.cancel() }
      return try await client.exec(OutgoingEvent("a@b"))
    }
    await #expect(throws: CancellationError.self) { try await call.value }
  }

  @Test func `a request without an answer ends at its deadline and frees its place`() async throws {
    let node = try FakeNode { frame in
      frame.id == 1 ? [] : [FakeNode.response(id: frame.id, ["n": 2])]
    }
    var configuration = Client.Configuration()
    configuration.window = 1
    let client = try await Client(path: node.path, configuration: configuration)
    let error = await #expect(throws: StatusError.self) {
      try await client.request("slow", timeout: .milliseconds(20))
    }
    #expect(error?.status == .deadlineExceeded)
    #expect(error?.ran == .unknown)
    #expect(try await client.request("next").json["n"]?.int == 2)
  }

  @Test func `a request that never got its turn says that it never ran`() async throws {
    let (frames, continuation) = AsyncStream.makeStream(of: FrameType.self)
    let node = try FakeNode { frame in
      continuation.yield(frame.type)
      return []
    }
    var configuration = Client.Configuration()
    configuration.window = 1
    let client = try await Client(path: node.path, configuration: configuration)
    let blocker = Task { try await client.call(OutgoingEvent("a@b")) }
    var types = frames.makeAsyncIterator()
    #expect(await types.next() == .exec)
    let error = await #expect(throws: StatusError.self) {
      try await client.exec(OutgoingEvent("a@b"), timeout: .milliseconds(10))
    }
    #expect(error?.ran == .never)
    blocker.cancel()
  }

  @Test func `the end of the connection fails everything under way`() async throws {
    let node = try FakeNode { $0.id < 3 ? [] : nil }
    let client = try await Client(path: node.path)
    await withTaskGroup(of: ClientError.Code?.self) { group in
      for _ in 0..<3 {
        group.addTask {
          do {
            _ = try await client.call(OutgoingEvent("a@b"))
            return nil
          } catch {
            return (error as? ClientError)?.code
          }
        }
      }
      for await code in group { #expect(code == .disconnected) }
    }
    let later = await #expect(throws: ClientError.self) { try await client.request("node.info") }
    #expect(later?.code == .disconnected)
  }

  @Test func `closing gives up what is under way`() async throws {
    let (frames, continuation) = AsyncStream.makeStream(of: FrameType.self)
    let node = try FakeNode { frame in
      continuation.yield(frame.type)
      return []
    }
    let client = try await Client(path: node.path)
    let call = Task { try await client.call(OutgoingEvent("a@b")) }
    var types = frames.makeAsyncIterator()
    #expect(await types.next() == .exec)
    client.close()
    let error = await #expect(throws: ClientError.self) { try await call.value }
    #expect(error?.code == .closed)
  }

  @Test func `a large request goes out in parts while answers come in`() async throws {
    let node = try FakeNode { frame in [FakeNode.response(id: frame.id, ["size": JSONValue(frame.body.count)])] }
    let client = try await Client(path: node.path)
    let blob = ByteSlice([UInt8](repeating: 7, count: 20_000_000))
    async let big = client.request("big", blob: blob)
    async let small = client.request("small")
    #expect(try await big.json["size"]?.int ?? 0 > 20_000_000)
    #expect(try await small.json["size"] != nil)
  }
}
