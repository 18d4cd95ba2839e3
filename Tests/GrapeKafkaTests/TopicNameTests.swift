import Testing

@testable import GrapeKafka

@Suite("Names of topics on the cluster")
struct TopicNameTests {
  private func directory(namespace: String, external: String? = nil) throws -> TopicDirectory {
    var configuration = KafkaConfiguration(bootstrapServers: "127.0.0.1:1", transactionalID: "n1")
    configuration.namespace = namespace
    if let external {
      configuration.externalNamespace = external
      configuration.isExternal = { !$0.hasSuffix(".events") }
    }
    return TopicDirectory(try RDKafkaClient(.consumer, configuration, own: []), configuration)
  }

  @Test("all topics are in the namespace, unless some are said to be others'")
  func all() throws {
    let directory = try directory(namespace: "ns.")
    #expect(directory.clusterName("orders") == "ns.orders")
    #expect(directory.ownName("ns.orders") == "orders")
    #expect(directory.ownName("orders") == nil && directory.ownName("ns.") == nil)
  }

  @Test("topics of others have their own names, and those of other installations are not seen")
  func others() throws {
    let directory = try directory(namespace: "ns.", external: "")
    #expect(directory.clusterName("app.events") == "ns.app.events")
    #expect(directory.clusterName("orders") == "orders")
    #expect(directory.ownName("ns.app.events") == "app.events")
    #expect(directory.ownName("orders") == "orders")
    #expect(directory.ownName("app.events") == nil, "of an installation without a namespace")
    #expect(directory.ownName("other.app.events") == nil)
    #expect(directory.ownName("__consumer_offsets") == nil)
  }

  @Test("a name leads to a topic and back, wherever namespaces overlap", arguments: ["", "a.", "a.b.", "b"])
  func backAndForth(namespace: String) throws {
    for external in ["", "a.", "a.b.", "b"] {
      let directory = try directory(namespace: namespace, external: external)
      for name in ["orders", "app.events", "a.orders", "a.app.events", "b.x"] {
        #expect(directory.ownName(directory.clusterName(name)) == name, "\(namespace) \(external) \(name)")
      }
    }
  }
}
