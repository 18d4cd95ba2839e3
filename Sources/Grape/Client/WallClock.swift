internal import CGrapeLinux

/// Milliseconds since 1970 UTC.
func wallClockMilliseconds() -> Int64 { grape_realtime_ms() }
