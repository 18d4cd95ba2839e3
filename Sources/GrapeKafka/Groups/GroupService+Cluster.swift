internal import CRDKafka
internal import GrapeLog

// The side of the groups that the cluster sees.
extension GroupService {
  /// Has the group's consumer subscribe to what the members subscribe to.
  func subscribe(_ group: NodeGroup) {
    let topics = Set(group.members.topics.map(directory.clusterName))
    if group.consumer != nil && topics == group.subscription || group.retryAt != nil { return }
    do throws(LogError) {
      let consumer = try makeConsumer(group)
      try consumer.subscribe(topics)
      group.subscription = topics
    } catch {
      note(3, error.message)
      meters.failed(error)
      if let consumer = group.consumer { abandon(consumer, group) }
      group.retryAt = MonotonicClock.now + Self.renewalTime
    }
  }

  private func makeConsumer(_ group: NodeGroup) throws(LogError) -> GroupConsumer {
    if let consumer = group.consumer { return consumer }
    let consumer = try GroupConsumer(configuration, group: configuration.namespace + group.name, wakeup: wakeup)
    group.consumer = consumer
    group.subscription = []
    ownership.setConsumer(consumer, of: group.name)
    return consumer
  }

  func serveEvents() {
    for group in Array(groups.values) {
      while let consumer = group.consumer, let event = consumer.next() { handle(event, of: consumer, group) }
    }
    for leaver in leaving {
      while let event = leaver.consumer.next() { answer(event, leaver.consumer) }
    }
    let now = MonotonicClock.now
    leaving.removeAll { leaver in
      let isOver = leaver.consumer.isClosed || leaver.deadline <= now
      if isOver { leaver.consumer.end() }
      return isOver
    }
  }

  private func handle(_ event: GroupConsumer.Event, of consumer: GroupConsumer, _ group: NodeGroup) {
    switch event {
    case .assigned(let partitions):
      meters.rebalanced()
      do throws(LogError) {
        try consumer.accept()
      } catch {
        // librdkafka goes on from here as it sees fit; what it did not take it does not have.
        note(3, error.message)
        meters.failed(error)
        return
      }
      group.members.assign(own(partitions))
      settle(group)
    case .revoked(let partitions, let isLost):
      meters.rebalanced()
      group.revocationDeadline = MonotonicClock.after(milliseconds: configuration.revocationTimeout)
      if isLost { group.members.lose(own(partitions)) } else { group.members.revoke(own(partitions)) }
      settle(group)
    case .failed(let code, let text, let isFatal):
      // Of topics that are not there yet it says so again and again.
      if code == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART { return }
      let error = KafkaError.log(code, "as a member of group \(group.name)", detail: text)
      note(isFatal ? 2 : 4, error.message)
      meters.failed(error)
      guard isFatal else { return }
      abandon(consumer, group)
      group.retryAt = MonotonicClock.now + Self.renewalTime
    case .other: break
    }
  }

  private func own(_ partitions: [TopicPartition]) -> [TopicPartition] {
    partitions.compactMap { partition in
      directory.ownName(partition.topic).map { TopicPartition($0, partition.partition) }
    }
  }

  /// Gives back to the cluster what it wants back.
  func release(_ group: NodeGroup) {
    group.revocationDeadline = nil
    group.members.release()
    do throws(LogError) {
      try group.consumer?.release()
    } catch {
      note(3, error.message)
      meters.failed(error)
    }
  }

  /// A consumer that is of no use any more.
  private func abandon(_ consumer: GroupConsumer, _ group: NodeGroup) {
    group.consumer = nil
    group.subscription = []
    group.revocationDeadline = nil
    ownership.setConsumer(nil, of: group.name)
    group.members.loseAll()
    tell(group)
    dismiss(consumer, of: group)
  }

  /// Leaves the group on the cluster.
  func dismiss(_ consumer: GroupConsumer, of group: NodeGroup) {
    do throws(LogError) {
      if group.revocationDeadline != nil { try consumer.release() }
      group.revocationDeadline = nil
      try consumer.close()
      leaving.append(
        LeavingConsumer(consumer: consumer, group: group.name, deadline: MonotonicClock.now + Self.leaveTime))
    } catch {
      // The cluster will notice by the session timeout.
      note(4, error.message)
      consumer.end()
    }
  }

  /// Of a consumer that leaves: nobody here has its partitions any more.
  private func answer(_ event: GroupConsumer.Event, _ consumer: GroupConsumer) {
    do throws(LogError) {
      switch event {
      case .assigned: try consumer.accept()
      case .revoked: try consumer.release()
      case .failed, .other: break
      }
    } catch {
      note(4, error.message)
    }
  }
}
