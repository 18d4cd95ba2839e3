import GrapeCore
import GrapeLog
import GrapeWire

@testable import GrapeEngine

extension FuzzTarget {
  /// Batches of topics that are not Grape's, on their way to a slot: nobody has checked them.
  static let sourceBatch = FuzzTarget("source-batch") {
    [
      try Sample.batch().array, try Sample.batch(30, zstd: true).array, try Sample.batchWithGaps().array,
      try cloudEvents().array,
    ]
  } body: { bytes in
    guard let batch = repaired(bytes), let header = try taken({ try RecordBatchHeader(batch.unsafeBytes) }) else {
      return
    }
    let rules = SourceRules(
      place: TopicPartition("orders", 1), slot: Array("a".utf8), keyHeader: Array("ce_id".utf8),
      eventsTopic: "app.events", partitions: 3, deadLettersTopic: "app.dead", version: "v", eventLimit: 4096,
      batchLimit: 1 << 16, compression: .none)
    let work = SourceWork(
      rules: rules,
      batches: [
        LogBatch(
          bytes: batch, baseOffset: header.baseOffset, lastOffset: header.lastOffset, maxTimestamp: header.maxTimestamp)
      ], from: header.baseOffset, spread: 0, now: 1)
    let result = work.run()
    try promise(
      (header.baseOffset...header.lastOffset + 1).contains(result.next),
      "goes on at \(result.next), outside of \(header)")
    try promise(result.isComplete || result.damage != nil, "stops for no reason")
    let scanner = EventScanner(app: "app", slots: ["a"], eventLimit: 4096, batchLimit: 1 << 20)
    var events = 0
    for append in result.appends where append.partition.topic == "app.events" {
      var counts = [0]
      _ = try scanner.scan(append.batch, from: .client, checkingCRC: true, counts: &counts)
      events += counts[0]
    }
    try promise(events == result.events, "\(events) events of \(result.events)")
  }

  private static func cloudEvents() throws -> ByteSlice {
    var headers = HeaderSection()
    headers.append("content-type", Array("application/cloudevents+json".utf8))
    let section = headers.finish()
    var builder = RecordBatchBuilder()
    for value in [
      #"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"a":[1,"x\"}"]}}"#,
      #"{"specversion":"1.0","id":"2","source":"/s","type":"t","data_base64":"aGVsbG8=","n":-1,"traceparent":"00"}"#,
      #"{"specversion":"1.0","id":"3","source":"/s","type":"t","datacontenttype":"text/plain","data":"text"}"#,
    ] {
      builder.append(key: ByteSlice("k"), value: ByteSlice(value), headerSection: section, timestamp: 5)
    }
    return try builder.take().bytes
  }
}
