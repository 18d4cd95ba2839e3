import CRDKafka
import GrapeLog
import Testing

@testable import GrapeKafka

@Suite("Reports on deliveries")
struct DeliveryLedgerTests {
  private func report(_ ledger: DeliveryLedger, _ append: Int, at offset: Int64) {
    var message = rd_kafka_message_t()
    message.offset = offset
    message._private = DeliveryLedger.opaque(append: append)
    ledger.handedOver(append: append)
    ledger.report(&message)
  }

  @Test("a receipt says where each record is, whoever wrote between them")
  func interruptions() {
    let ledger = DeliveryLedger(appends: 3)
    report(ledger, 0, at: 4)
    for offset: Int64 in [10, 11, 15, 16, 30] { report(ledger, 1, at: offset) }
    for offset: Int64 in [7, 8] { report(ledger, 2, at: offset) }
    #expect(ledger.isComplete)
    let receipt = ledger.receipt(1..<3)
    #expect(receipt.baseOffsets == [10, 7])
    #expect((0..<5).map { receipt.offset(ofRecord: $0, append: 0) } == [10, 11, 15, 16, 30])
    #expect((0..<2).map { receipt.offset(ofRecord: $0, append: 1) } == [7, 8])
    #expect(ledger.receipt(0..<1).interruptions.isEmpty)
  }
}
