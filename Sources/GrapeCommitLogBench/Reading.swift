import CGrapeLinux
import Glibc
import GrapeCommitLog
import GrapeLog
import GrapeWire
import Synchronization

/// Reads from the beginning to the end: one partition, or all of them with one read of each in flight.
enum Replay {
  private final class Readers: Sendable {
    let finished = Semaphore()
    let bytes = Atomic(0)
    let records = Atomic(0)
    private let driver: Driver
    private let maxBytes: Int

    init(_ driver: Driver, maxBytes: Int) {
      self.driver = driver
      self.maxBytes = maxBytes
    }

    func next(_ partition: Int32, from offset: Int64, to end: Int64) {
      if offset >= end { return finished.signal() }
      driver.log.read(TopicPartition(Driver.topic, partition), from: offset, maxBytes: maxBytes) { result in
        switch result {
        case .failure(let error): fail("read: \(error)")
        case .success(let found):
          self.bytes.add(found.batches.reduce(0) { $0 + $1.bytes.count }, ordering: .relaxed)
          self.records.add(found.batches.reduce(0) { $0 + Int($1.lastOffset - $1.baseOffset + 1) }, ordering: .relaxed)
          self.next(partition, from: found.nextOffset, to: end)
        }
      }
    }
  }

  static func run(_ arguments: Arguments) {
    let driver = Driver(arguments.directory)
    let readers = Readers(driver, maxBytes: arguments.integer("read-kib", or: 1_024) << 10)
    let partitions =
      arguments.has("partition") ? [Int32(arguments.integer("partition"))] : Array(0..<driver.partitions)
    let bounds = partitions.map { driver.bounds($0) }
    let took = nanoseconds {
      for (partition, bounds) in zip(partitions, bounds) {
        readers.next(partition, from: bounds.start, to: bounds.end)
      }
      for _ in partitions { readers.finished.wait() }
    }
    var report = Report()
    report.add(
      bytes: readers.bytes.load(ordering: .relaxed), records: readers.records.load(ordering: .relaxed),
      nanoseconds: took)
    report.add("expectedRecords", bounds.reduce(0) { $0 + Int($1.end - $1.start) })
    report.add("readerProcessorSeconds", ProcessStatus.processorSeconds("log-reader"))
    report.addMemory()
    driver.close()
    report.write()
  }
}

/// Reads what the log still has in memory and decodes every record.
enum Decoding {
  private static let bytes = 16 << 20

  static func run(_ arguments: Arguments) {
    let driver = Driver(arguments.directory)
    driver.append(Batches.load(arguments.string("batches")), bytes: bytes, inFlight: 32)
    let wanted = arguments.integer("records")
    var (records, bytes, valueBytes) = (0, 0, 0)
    let took = nanoseconds {
      while records < wanted {
        for partition in 0..<driver.partitions {
          let bounds = driver.bounds(partition)
          var next = bounds.start
          while next < bounds.end {
            let found = driver.read(partition, from: next, maxBytes: 1 << 20)
            for batch in found.batches {
              let decoded = decode(batch.bytes)
              records += decoded.records
              valueBytes += decoded.valueBytes
              bytes += batch.bytes.count
            }
            next = found.nextOffset
          }
        }
      }
    }
    let statistics = driver.log.statistics
    guard statistics.diskReads == 0, statistics.cachedReads > 0 else { fail("records were read from the disk") }
    var report = Report()
    report.add(bytes: bytes, records: records, nanoseconds: took)
    report.add("valueBytesPerRecord", Double(valueBytes) / Double(records))
    driver.close()
    report.write()
  }

  static func decode(_ batch: ByteSlice) -> (records: Int, valueBytes: Int) {
    do throws(WireError) {
      let unpacked = try RecordBatch.unpack(batch, checkingCRC: false, limit: batch.count)
      var reader = unpacked.reader()
      var records = 0
      var valueBytes = 0
      while let record = try reader.next() {
        records += 1
        valueBytes += record.value?.count ?? 0
      }
      withExtendedLifetime(unpacked) {}
      return (records, valueBytes)
    } catch {
      fail("a record batch from the log: \(error)")
    }
  }
}

/// How long a read takes: of what was just appended, and of something anywhere in the log.
enum Lookups {
  static func run(_ arguments: Arguments) {
    let driver = Driver(arguments.directory)
    let count = arguments.integer("count")
    let batch = Batches.small()
    var random = SystemRandomNumberGenerator()
    var tail: [Int64] = []
    var anywhere: [Int64] = []
    let bounds = (0..<driver.partitions).map { driver.bounds($0) }
    for number in 0..<count {
      let partition = Int32(number) % driver.partitions
      driver.append([batch], bytes: 1, inFlight: 1, .os)
      let end = driver.bounds(0).end
      tail.append(nanoseconds { _ = driver.read(0, from: end - 1, maxBytes: 64 << 10) })
      let offset = Int64.random(in: bounds[Int(partition)].start..<bounds[Int(partition)].end, using: &random)
      anywhere.append(nanoseconds { _ = driver.read(partition, from: offset, maxBytes: 64 << 10) })
    }
    var report = Report()
    report.add("tail", nanoseconds: tail)
    report.add("anywhere", nanoseconds: anywhere)
    report.addMemory()
    driver.close()
    report.write()
  }
}
