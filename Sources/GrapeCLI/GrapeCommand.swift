import ArgumentParser

/// `grape`: everything that can be done with a node from the command line.
@main
struct GrapeCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "grape",
    abstract: "Message-queue-backed stream processing: a node, and everything to do with it.",
    discussion: """
      A node runs with `grape serve`. The other commands find it by --node, by the environment variable GRAPE_NODE, or
      at the default data directory ($XDG_DATA_HOME/grape or ~/.local/share/grape).

      Every command takes --json, and exits with a code of its own per kind of failure: `grape exit-codes` lists them.

      EXAMPLES
        grape serve --data ./node &
        export GRAPE_NODE=./node
        grape init my-app --runtime python
        grape deploy my-app
        grape exec my-app@greet --data world --block
        grape ingest my-app@greet names.csv --key-field name
        grape stats --watch
      """,
    version: "0.1.0",
    subcommands: [
      ServeCommand.self, InitCommand.self, DeployCommand.self, AppCommand.self, ExecCommand.self, IngestCommand.self,
      TailCommand.self, StateCommand.self, TopologyCommand.self, StatsCommand.self, ClusterCommand.self,
      LogCommand.self,
      NodeCommands.self, ConfigCommand.self,
      SDKCommand.self,
      BenchCommand.self, ExitCodesCommand.self,
    ])
}
