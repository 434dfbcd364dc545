// Result<T> and Status: how every mcpgw call reports an expected failure.
//
// Member names follow std::expected, so that an alias can replace this type once C++23 is the floor.
// Values are plain data: copyable, movable, safe to hand between threads.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace mcpgw {

/// The broad kind of a failure. `Error::reason` refines it.
enum class ErrorCode {
  invalid_argument,    ///< the caller's input is malformed or out of range
  unauthenticated,     ///< no or invalid credentials
  permission_denied,   ///< authenticated, but not permitted
  not_found,           ///< the object does not exist, or the caller may not see it
  conflict,            ///< the stored state contradicts the write (name taken, last admin, ...)
  precondition_failed, ///< the expected version is not the stored one
  unavailable,         ///< a dependency is away or the system is overloaded; trying again may help
  deadline_exceeded,   ///< the time limit was reached
  cancelled,           ///< the caller gave up
  resource_exhausted,  ///< a limit or quota was reached
  unsupported,         ///< not offered here
  data_loss,           ///< stored data is damaged or cannot be decrypted
  internal,            ///< our own fault
};

/// "invalid_argument", "not_found", ...
const char* to_string(ErrorCode code) noexcept;

/// What went wrong. Never holds a secret, a file path, SQL or an upstream's text.
struct Error {
  ErrorCode code = ErrorCode::internal;
  std::string reason;   ///< stable snake_case word for programs, such as "name_taken"
  std::string message;  ///< a sentence for people: names the thing and the next step
  std::string field;    ///< the member or parameter at fault, when one is

  Error() = default;
  Error(ErrorCode c, std::string r, std::string m, std::string f = {})
      : code(c), reason(std::move(r)), message(std::move(m)), field(std::move(f)) {}
};

/// Either a T or an Error. Accessing the wrong one is a programming mistake (undefined behaviour,
/// as with std::expected).
template <class T>
class [[nodiscard]] Result {
 public:
  using value_type = T;
  using error_type = Error;

  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT(*-explicit-*)
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT(*-explicit-*)

  bool has_value() const noexcept { return state_.index() == 0; }
  explicit operator bool() const noexcept { return has_value(); }

  T& value() & { return *std::get_if<0>(&state_); }
  const T& value() const& { return *std::get_if<0>(&state_); }
  T&& value() && { return std::move(*std::get_if<0>(&state_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return std::get_if<0>(&state_); }
  const T* operator->() const { return std::get_if<0>(&state_); }

  Error& error() & { return *std::get_if<1>(&state_); }
  const Error& error() const& { return *std::get_if<1>(&state_); }
  Error&& error() && { return std::move(*std::get_if<1>(&state_)); }

  template <class U>
  T value_or(U&& fallback) const& {
    return has_value() ? value() : static_cast<T>(std::forward<U>(fallback));
  }

 private:
  std::variant<T, Error> state_;
};

/// Success, or an Error.
template <>
class [[nodiscard]] Result<void> {
 public:
  using value_type = void;
  using error_type = Error;

  Result() = default;
  Result(Error error) : error_(std::move(error)) {}  // NOLINT(*-explicit-*)

  bool has_value() const noexcept { return !error_.has_value(); }
  explicit operator bool() const noexcept { return has_value(); }
  Error& error() & { return *error_; }
  const Error& error() const& { return *error_; }
  Error&& error() && { return std::move(*error_); }

 private:
  std::optional<Error> error_;
};

using Status = Result<void>;

}  // namespace mcpgw
