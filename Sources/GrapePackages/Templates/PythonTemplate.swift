/// A project in Python.
struct PythonTemplate {
  let app: String

  func files(sdk: [UInt8]) -> [ProjectFile] {
    [
      ProjectFile("grape.yaml", manifest), ProjectFile("app.py", application), ProjectFile("test_app.py", test),
      ProjectFile("README.md", readme), ProjectFile(".gitignore", "__pycache__/\n.venv/\n"),
      ProjectFile(".grape/grape.py", sdk),
    ]
  }

  private var manifest: String {
    """
    # What this application is. Every field is described in docs/manifest.md of Grape.
    grape: 1
    name: \(app)
    description: Greets whoever it hears of.
    runtime: python
    entry: app.py
    partitions: 4

    slots:
      received:
        description: A name
        emits: [greeted]
      greeted:
        description: A greeting; answers the caller

    # Files of the folder that workers do not need.
    exclude: [test_app.py, README.md, .gitignore]

    profile:
      workers: {min: 0, max: 2}

    """
  }

  private var application: String {
    """
    \"\"\"Greets whoever it hears of: `received` makes a greeting, `greeted` answers with it.\"\"\"

    from grape import Application, Context, Event, Reject

    app = Application()


    @app.on("received")
    def received(event: Event, context: Context):
        name = event.text.strip()
        if not name:
            # Final: the caller gets the code and the message; without a caller the event becomes a dead letter.
            raise Reject(22, "a name is expected")
        # The same key keeps all events about one person in order.
        context.emit("greeted", f"Hello, {name}!", key=event.key)


    @app.on("greeted")
    def greeted(event: Event, context: Context):
        context.log.info("greeted", text=event.text)
        # What a handler returns answers whoever waits for the event, here the caller of `received`.
        return event.value


    if __name__ == "__main__":
        app.run()

    """
  }

  private var test: String {
    """
    \"\"\"Runs the handlers in this process, without a node: python3 -m unittest\"\"\"

    import pathlib
    import sys
    import unittest

    # A copy of the SDK that `grape init` put here; workers get theirs from the node.
    sys.path.insert(0, str(pathlib.Path(__file__).parent / ".grape"))

    from grape import TestRun  # noqa: E402

    from app import app  # noqa: E402


    class Greeting(unittest.TestCase):
        def test_received_emits_a_greeting_with_the_same_key(self):
            with TestRun(app, routes=["greeted"]) as run:
                result = run.send("received", b"Ada", key=b"k")
                self.assertIsNone(result.reply, "the next slot answers")
                [event] = result.emitted
                self.assertEqual((event.name, event.value, event.key), ("greeted", b"Hello, Ada!", b"k"))

        def test_greeted_answers_the_caller(self):
            with TestRun(app, routes=["greeted"]) as run:
                self.assertEqual(run.send("greeted", b"Hello, Ada!").reply, b"Hello, Ada!")

        def test_an_empty_name_is_refused(self):
            with TestRun(app, routes=["greeted"]) as run:
                result = run.send("received", b" ")
                self.assertEqual(result.emitted, [])


    if __name__ == "__main__":
        unittest.main()

    """
  }

  private var readme: String {
    """
    # \(app)

    A stream processing application for Grape, in Python. It has two slots: `received` makes a greeting and emits it,
    `greeted` answers with it.

    | file | |
    |---|---|
    | `grape.yaml` | the manifest: name, slots, what they emit, how workers run |
    | `app.py` | the handlers |
    | `test_app.py` | their tests, which need no node |
    | `.grape/grape.py` | a copy of the SDK, for tests and editors; not part of the package |

    ## Test it

    In this folder:

    ```
    python3 -m unittest
    ```

    \(TemplateText.running(app, folder: "."))
    """
  }
}
