// Fills a message of robot_charger and asks for the type support that a C++ node would publish it with.
#include <cstdio>

#include <robot_charger/action/charge.hpp>
#include <robot_charger/msg/pilot_command.hpp>
#include <robot_charger/srv/authorize.hpp>
#include <rosidl_runtime_cpp/traits.hpp>
#include <rosidl_typesupport_cpp/action_type_support.hpp>
#include <rosidl_typesupport_cpp/identifier.hpp>
#include <rosidl_typesupport_cpp/message_type_support.hpp>
#include <rosidl_typesupport_cpp/service_type_support.hpp>
#include <rosidl_typesupport_fastrtps_cpp/identifier.hpp>

int main()
{
  robot_charger::msg::PilotCommand command;
  command.mode = robot_charger::msg::PilotCommand::MODE_STEADY;
  const auto * message = rosidl_typesupport_cpp::get_message_type_support_handle<robot_charger::msg::PilotCommand>();
  const auto * service = rosidl_typesupport_cpp::get_service_type_support_handle<robot_charger::srv::Authorize>();
  const auto * action = rosidl_typesupport_cpp::get_action_type_support_handle<robot_charger::action::Charge>();
  // The middleware asks for its own type support in this way: it loads another library of the package.
  const auto * fast = message->func(message, rosidl_typesupport_fastrtps_cpp::typesupport_identifier);
  std::printf("%s mode %d\n", rosidl_generator_traits::name<robot_charger::msg::PilotCommand>(), command.mode);
  return message && service && action && fast ? 0 : 1;
}
