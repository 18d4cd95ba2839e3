import ArgumentParser

/// `grape state`
struct StateCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "state",
    abstract: "Read, write, back up and check an application's state.",
    discussion: """
      An entry belongs to one partition: that of the events whose handler wrote it. Reading looks in all partitions
      unless --partition, or --for and an event's key, names one. Writing goes to the named partition; without one to
      where the key's entry is, and if there is none yet to the partition that events with this key would have.

      Writes go through the log like events: they are durable once the command returns, and come between two events
      of the partition, never into one.

      EXAMPLES
        grape state get flights count:UA --for UA
        grape state put flights limit 5000 --ttl 30d --tag config
        grape state scan flights --prefix count: --limit 20
        grape state export flights > flights.ndjson
        grape state backup flights /backup/flights-1
      """,
    subcommands: [
      StateGetCommand.self, StatePutCommand.self, StateRemoveCommand.self, StateCasCommand.self,
      StateAppendCommand.self, StateScanCommand.self, StateFindCommand.self, StateImportCommand.self,
      StateExportCommand.self, StateBackupCommand.self, StateVerifyCommand.self, StateRestoreCommand.self,
    ])
}
