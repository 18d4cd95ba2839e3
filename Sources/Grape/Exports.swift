// Types of the lower layers that handlers and callers see: importing Grape is enough to name them.
@_exported public import struct GrapeWire.ByteSlice
@_exported public import enum GrapeCore.JSONValue
@_exported public import struct GrapeState.StateError
