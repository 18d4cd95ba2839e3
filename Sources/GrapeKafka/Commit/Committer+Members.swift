internal import CRDKafka
internal import GrapeLog

/// This node's stay in a group; without one: a group that nobody here has joined.
struct GroupStay: Hashable {
  let group: String
  let token: UInt64?
}

// Whether this node may commit a group's offsets, and as which member.
extension Committer {
  func stays(of group: [PreparedTransaction]) -> Set<GroupStay> {
    group.reduce(into: []) { stays, transaction in
      for commit in transaction.transaction.offsets {
        stays.insert(GroupStay(group: commit.group, token: transaction.stays[commit.group]))
      }
    }
  }

  /// Who this node is in the groups of these transactions; `missing`: where it is nobody at this time.
  func identities(
    of group: [PreparedTransaction]
  ) -> (found: [GroupStay: MemberIdentity], missing: Set<GroupStay>) {
    var found: [GroupStay: MemberIdentity] = [:]
    var missing: Set<GroupStay> = []
    for stay in stays(of: group) {
      guard let token = stay.token else { continue }
      if let identity = ownership.consumer(of: stay.group, token)?.identity() {
        found[stay] = identity
      } else {
        missing.insert(stay)
      }
    }
    return (found, missing)
  }

  /// Those of a group that may be tried now; the others are answered.
  func admissible(
    _ group: [PreparedTransaction], _ identities: (found: [GroupStay: MemberIdentity], missing: Set<GroupStay>),
    _ tries: inout Tries
  ) -> [PreparedTransaction] {
    let now = MonotonicClock.now
    for stay in identities.missing { tries.noteStale(stay, nil) }
    for (stay, identity) in identities.found where tries.stale[stay]?.identity != identity.bytes {
      tries.stale[stay] = nil
    }
    let isClosing = queue.closedAt != nil && !tries.isFirst
    var draft = OffsetMemory.Draft()
    return group.filter { transaction in
      if transaction.isLate(now) {
        refuse(transaction, LogError(.busy, tries.lastError.message), wasTried: false)
      } else if isClosing && transaction.transaction.isPatient {
        refuse(transaction, LogError(.closed, "the log is closed; \(tries.lastError.message)"), wasTried: false)
      } else if let lost = lostPartition(of: transaction, identities.found, tries, now) {
        refuse(transaction, lost, wasTried: false)
      } else if let refusal = memory.refusal(transaction.transaction, number: transaction.number, after: &draft) {
        refuse(transaction, refusal, wasTried: false)
      } else {
        return true
      }
      return false
    }
  }

  /// Why a transaction's offsets are not this node's to commit; nil: they are, as far as it knows.
  private func lostPartition(
    of transaction: PreparedTransaction, _ identities: [GroupStay: MemberIdentity], _ tries: Tries, _ now: Int64
  ) -> LogError? {
    for (commit, term) in zip(transaction.transaction.offsets, transaction.terms) {
      guard let token = transaction.stays[commit.group] else { continue }
      let stay = GroupStay(group: commit.group, token: token)
      let what = "group \(commit.group) in \(commit.partition)"
      guard ownership.owns(commit.partition, in: commit.group, token, term: term) else {
        return LogError(.partitionLost, "\(what): the partition is not with this node's members any more")
      }
      if let refused = tries.refused[stay], refused == identities[stay]?.bytes {
        return LogError(.partitionLost, "\(what): the group goes on without this node: \(tries.lastError.message)")
      }
      if let stale = tries.stale[stay], now - stale.since > Self.staleTime {
        return LogError(.partitionLost, "\(what): this node is no member of the group at this time")
      }
    }
    return nil
  }

  func offsets(
    of group: [PreparedTransaction], _ identities: [GroupStay: MemberIdentity]
  ) -> [TransactionalProducer.GroupOffsets] {
    var offsets: [GroupStay: [TopicPartition: CommittedOffset]] = [:]
    for transaction in group {
      for commit in transaction.transaction.offsets {
        let partition = TopicPartition(directory.clusterName(commit.partition.topic), commit.partition.partition)
        let stay = GroupStay(group: commit.group, token: transaction.stays[commit.group])
        offsets[stay, default: [:]][partition] = commit.committed
      }
    }
    return offsets.map { stay, offsets in
      TransactionalProducer.GroupOffsets(stay: stay, identity: identities[stay], offsets: offsets)
    }
  }

  func note(_ stay: GroupStay, _ code: rd_kafka_resp_err_t, _ identity: MemberIdentity?) {
    meters.staleMember()
    configuration.log?(
      KafkaLogLine(
        level: 5, facility: "COMMIT",
        message: "group \(stay.group) refuses this node's offsets: \(String(cString: rd_kafka_err2name(code)))"))
  }
}

extension Committer.Tries {
  /// A group's coordinator does not take offsets from this node as the member that it was.
  mutating func noteRefusal(_ stay: GroupStay, _ code: rd_kafka_resp_err_t, _ identity: MemberIdentity?) {
    switch code {
    case RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID, RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID:
      // Unless this node is another member by now.
      refused[stay] = identity?.bytes
    case RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION:
      // The news of the next generation may be on their way here.
      noteStale(stay, identity?.bytes)
    default: break
    }
  }

  mutating func noteStale(_ stay: GroupStay, _ identity: [UInt8]?) {
    if let found = stale[stay], found.identity == identity { return }
    stale[stay] = (identity, MonotonicClock.now)
  }
}
