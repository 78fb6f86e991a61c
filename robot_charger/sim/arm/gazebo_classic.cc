// Gazebo Classic in step with gazebo_classic.py: a world plugin that runs as many milliseconds as it is told to, follows
// the joints' set-points, and tells where everything is and what the wrist feels. All decisions are Python's.
//
// One message each way over a Unix socket (SOCK_SEQPACKET), native byte order. Units m, N, Nm, rad, s. Poses are x, y,
// z and the quaternion w, x, y, z in the world's frame.

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <algorithm>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>

#include <gazebo/common/Plugin.hh>
#include <gazebo/physics/physics.hh>

namespace {

using gazebo::physics::JointPtr;
using gazebo::physics::LinkPtr;
using gazebo::physics::ModelPtr;
using ignition::math::Pose3d;
using ignition::math::Quaterniond;
using ignition::math::Vector3d;

constexpr int kAxes = 6;
const char* const kJoints[kAxes] = {"shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3"};
constexpr double kServo = 120.0;        // follows a set-point's error with this rate [1/s]
constexpr double kBristle = 2.0e5;      // stiffness of static friction [N/m]
constexpr double kBristleDamping = 800.0;  // [N s/m]
constexpr double kJump = 0.05;          // a vehicle that is farther from its place was put there [m]
constexpr double kTurnInertia = 1.0e5;  // a vehicle does not turn [kg m^2]

struct Command {
  std::uint32_t steps;                // to run before the answer
  std::uint32_t gripped, hung, bolted;  // what the plug is fixed to: gripper, holster, vehicle
  std::uint32_t placed, unused;
  double target[kAxes], speed[kAxes];  // set-points now, and how fast they move
  double cable[3];                    // pull at the plug's origin, world frame
  double friction, detent;            // along the inlet's axis: at most so much, and against insertion
  double vehicle[7];                  // where its springs want it
  double stiffness[3], damping[3];    // along its axes
  double mass, weight;                // sprung mass, and what an occupant weighs
  double plug[7];                     // where a hand puts the plug, when ``placed``
  double mu;                          // friction of plug and inlet
};

struct State {
  double angle[kAxes], speed[kAxes];
  double wrench[6];                   // what the surroundings do to the tool, mean of the steps
  double gripper[7], plug[7], vehicle[7];
  double push;                        // of the plug on the inlet along its axis, mean of the steps
  double speed_of_plug;               // [m/s]
};

void put(const Pose3d& pose, double* out) {
  const double values[7] = {pose.Pos().X(), pose.Pos().Y(), pose.Pos().Z(), pose.Rot().W(),
                            pose.Rot().X(), pose.Rot().Y(), pose.Rot().Z()};
  std::memcpy(out, values, sizeof(values));
}

Pose3d pose_of(const double* v) { return Pose3d(Vector3d(v[0], v[1], v[2]), Quaterniond(v[3], v[4], v[5], v[6])); }

// A weld that comes and goes.
class Weld {
 public:
  void set(bool on, const ModelPtr& owner, const LinkPtr& parent, const LinkPtr& child) {
    if (on == static_cast<bool>(joint_)) return;
    if (!on) {
      joint_->Detach();
      joint_.reset();
      return;
    }
    joint_ = owner->GetWorld()->Physics()->CreateJoint("fixed", owner);
    joint_->Attach(parent, child);
    joint_->Load(parent, child, Pose3d());
    joint_->Init();
  }

 private:
  JointPtr joint_;
};

class Bay : public gazebo::WorldPlugin {
 public:
  void Load(gazebo::physics::WorldPtr world, sdf::ElementPtr options) override {
    world_ = world;
    const char* path = std::getenv("ROBOT_CHARGER_GAZEBO_SOCKET");
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    socket_ = ::socket(AF_UNIX, SOCK_SEQPACKET, 0);
    if (path == nullptr || std::strlen(path) >= sizeof(address.sun_path)) _exit(3);
    std::strcpy(address.sun_path, path);
    if (::connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) _exit(3);
    parked_ = options->Get<std::string>("park");
    std::ifstream file(std::getenv("ROBOT_CHARGER_GAZEBO_ARM"));
    std::stringstream arm;
    arm << file.rdbuf();
    world->InsertModelString(arm.str());
    begun_ = gazebo::event::Events::ConnectWorldUpdateBegin([this](const gazebo::common::UpdateInfo&) { begin(); });
  }

 private:
  bool find() {
    arm_ = world_->ModelByName("robot_charger_arm");
    const auto plug = world_->ModelByName("plug1"), vehicle = world_->ModelByName("vehicle1");
    if (!arm_ || !plug || !vehicle) return false;
    plug_ = plug->GetLink("body");
    vehicle_ = vehicle->GetLink("body");
    gripper_ = arm_->GetLink("gripper_link");
    sensor_ = arm_->GetJoint("wrench_sensor");
    if (!gripper_ || !sensor_) _exit(4);
    std::istringstream angles(parked_);
    for (int i = 0; i < kAxes; ++i) {
      double angle = 0.0;
      angles >> angle;
      joints_[i] = arm_->GetJoint(kJoints[i]);
      if (!joints_[i]) _exit(4);
      joints_[i]->SetPosition(0, angle);
      joints_[i]->SetParam("fmax", 0, joints_[i]->GetEffortLimit(0));
    }
    sensor_->SetProvideFeedback(true);
    world_->Physics()->GetContactManager()->SetNeverDropContacts(true);
    return true;
  }

  // Before every step of the physics.
  void begin() {
    if (!arm_ && !find()) return;
    measure();
    if (left_ == 0) {
      if (asked_) answer();
      if (::recv(socket_, &command_, sizeof(command_), 0) != sizeof(command_)) _exit(0);  // our station is gone
      left_ = command_.steps;
      asked_ = true;
      obey();
    }
    --left_;
    push();
  }

  void obey() {
    const Pose3d home = pose_of(command_.vehicle);
    if (command_.mass != mass_ || (home.Pos() - home_).Length() > kJump) {  // another vehicle, or none
      mass_ = command_.mass;
      auto inertial = vehicle_->GetInertial();
      inertial->SetMass(mass_);
      inertial->SetInertiaMatrix(kTurnInertia, kTurnInertia, kTurnInertia, 0, 0, 0);
      vehicle_->UpdateMass();
      const Vector3d sunk(0, 0, -command_.weight / command_.stiffness[2]);
      vehicle_->SetWorldPose(Pose3d(home.Pos() + home.Rot().RotateVector(sunk), home.Rot()));
      vehicle_->SetLinearVel(Vector3d::Zero);
      bend_ = 0.0;
    }
    home_ = home.Pos();
    if (command_.placed) {
      plug_->SetWorldPose(pose_of(command_.plug));
      plug_->SetLinearVel(Vector3d::Zero);
      plug_->SetAngularVel(Vector3d::Zero);
    }
    if (command_.mu != mu_) {
      mu_ = command_.mu;
      for (const auto& link : {plug_, vehicle_})
        for (const auto& collision : link->GetCollisions()) {
          collision->GetSurface()->FrictionPyramid()->SetMuPrimary(mu_);
          collision->GetSurface()->FrictionPyramid()->SetMuSecondary(mu_);
        }
    }
    grip_.set(command_.gripped, arm_, gripper_, plug_);
    hang_.set(command_.hung, plug_->GetModel(), LinkPtr(), plug_);
    bolt_.set(command_.bolted, plug_->GetModel(), vehicle_, plug_);
  }

  // Forces of one step.
  void push() {
    const double dt = world_->Physics()->GetMaxStepSize();
    for (int i = 0; i < kAxes; ++i) {
      command_.target[i] += command_.speed[i] * dt;
      joints_[i]->SetParam("vel", 0, command_.speed[i] + kServo * (command_.target[i] - joints_[i]->Position(0)));
    }
    const Pose3d home = pose_of(command_.vehicle), now = vehicle_->WorldPose();
    const Vector3d away = home.Rot().RotateVectorReverse(now.Pos() - home.Pos());
    const Vector3d moves = home.Rot().RotateVectorReverse(vehicle_->WorldLinearVel());
    Vector3d spring;
    for (int i = 0; i < 3; ++i) spring[i] = -command_.stiffness[i] * away[i] - command_.damping[i] * moves[i];
    Vector3d body = home.Rot().RotateVector(spring) - Vector3d(0, 0, command_.weight);
    vehicle_->SetAngularVel(Vector3d::Zero);

    plug_->AddForce(Vector3d(command_.cable[0], command_.cable[1], command_.cable[2]));
    const Vector3d axis = now.Rot().RotateVector(Vector3d::UnitX);
    const double slides = axis.Dot(plug_->WorldLinearVel() - vehicle_->WorldLinearVel());
    rub_ = 0.0;
    if (command_.friction > 0.0) {  // a bristle: bends until it slips
      const double most = command_.friction / kBristle;
      bend_ = std::max(-most, std::min(most, bend_ + slides * dt));
      rub_ = kBristle * bend_;
      if (std::abs(bend_) < most) rub_ += kBristleDamping * slides;
      rub_ = std::max(-command_.friction, std::min(command_.friction, rub_));
    } else {
      bend_ = 0.0;
    }
    rub_ += command_.detent;
    plug_->AddForce(-rub_ * axis);
    body += rub_ * axis;
    vehicle_->AddForce(body);
  }

  // What the step before has brought.
  void measure() {
    if (!asked_) return;
    const auto felt = sensor_->GetForceTorque(0);
    for (int i = 0; i < 3; ++i) {
      state_.wrench[i] += felt.body2Force[i];
      state_.wrench[3 + i] += felt.body2Torque[i];
    }
    const Vector3d axis = vehicle_->WorldPose().Rot().RotateVector(Vector3d::UnitX);
    double along = rub_;
    auto* manager = world_->Physics()->GetContactManager();
    for (unsigned int i = 0; i < manager->GetContactCount(); ++i) {
      const auto* contact = manager->GetContact(i);
      const bool first = contact->collision1->GetLink() == plug_, second = contact->collision2->GetLink() == plug_;
      if (!first && !second) continue;
      for (int k = 0; k < contact->count; ++k) {
        const auto& wrench = contact->wrench[k];
        along -= plug_->WorldPose().Rot().RotateVector(first ? wrench.body1Force : wrench.body2Force).Dot(axis);
      }
    }
    state_.push += along;
    ++measured_;
  }

  void answer() {
    for (int i = 0; i < kAxes; ++i) {
      state_.angle[i] = joints_[i]->Position(0);
      state_.speed[i] = joints_[i]->GetVelocity(0);
    }
    for (double& v : state_.wrench) v /= measured_;
    state_.push /= measured_;
    put(gripper_->WorldPose(), state_.gripper);
    put(plug_->WorldPose(), state_.plug);
    put(vehicle_->WorldPose(), state_.vehicle);
    state_.speed_of_plug = plug_->WorldLinearVel().Length();
    if (::send(socket_, &state_, sizeof(state_), MSG_NOSIGNAL) != sizeof(state_)) _exit(0);
    state_ = State{};
    measured_ = 0;
  }

  gazebo::physics::WorldPtr world_;
  gazebo::event::ConnectionPtr begun_;
  ModelPtr arm_;
  LinkPtr plug_, vehicle_, gripper_;
  JointPtr joints_[kAxes], sensor_;
  Weld grip_, hang_, bolt_;
  Command command_{};
  State state_{};
  std::string parked_;
  int socket_ = -1, measured_ = 0;
  std::uint32_t left_ = 0;
  bool asked_ = false;
  double bend_ = 0.0, rub_ = 0.0, mass_ = 0.0, mu_ = -1.0;
  Vector3d home_;
};

}  // namespace

GZ_REGISTER_WORLD_PLUGIN(Bay)
