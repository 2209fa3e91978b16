// The one exception of the library: a status of the C interface and a message for people.
#pragma once

#include <exception>
#include <string>
#include <utility>

#include "uare_rt.h"

namespace uare {

class Failure : public std::exception {
 public:
  Failure(uare_status status, std::string message) : status_(status), message_(std::move(message)) {}
  [[nodiscard]] uare_status status() const noexcept { return status_; }
  [[nodiscard]] const char *what() const noexcept override { return message_.c_str(); }

 private:
  uare_status status_;
  std::string message_;
};

}  // namespace uare
